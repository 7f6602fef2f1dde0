"""Who this GPU server is to its pool: what enrolment gave it, in one file of its state folder.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field

from outboard.errors import ConfigurationError

FILE = "identity.json"
# What systemd, podman and docker leave in a container.
_IN_CONTAINERS = ("/run/systemd/container", "/run/.containerenv", "/.dockerenv")
_NEXT = "enrol this server again: outboard join TOKEN"


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's name and secrets. `keys` are the controllers' public keys as last heard, in hex."""

    name: str
    token: str = field(repr=False)
    node_key: str = field(repr=False)
    authority_pem: str
    controllers: tuple[str, ...]
    keys: tuple[str, ...]


def write_identity(folder: str, identity: Identity) -> None:
    """Put it in place in one step, readable by this user alone, on disk when this returns."""
    path = os.path.join(folder, FILE)
    descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        json.dump(asdict(identity), file)
        file.flush()
        os.fsync(descriptor)
    os.rename(f"{path}.new", path)


def machine_mark(
    path: str = "/etc/machine-id",
    hardware: str = "/sys/class/dmi/id/product_uuid",
    containers: tuple[str, ...] = _IN_CONTAINERS,
) -> str:
    """What tells this machine from its clones, also from those that keep its machine-id; a hash,
    since machine-id itself is to stay here.

    Besides machine-id it is the uuid that a hypervisor gives each of its copies, which only root
    may read. A container sees its host's there, and moves between hosts: it is its name."""
    try:
        with open(path, "rb") as file:
            identity = file.read().strip()
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}", "make one: systemd-machine-id-setup"
        ) from error
    if not identity:
        raise ConfigurationError(f"{path} is empty", "make one: systemd-machine-id-setup")
    if any(os.path.exists(sign) for sign in containers):
        identity += b"\n" + os.uname().nodename.encode()
    else:
        try:
            with open(hardware, "rb") as file:
                identity += b"\n" + file.read().strip()
        except OSError:
            pass  # a machine without firmware tables
    return hashlib.sha256(b"outboard machine 1\n" + identity).hexdigest()


def read_identity(folder: str) -> Identity:
    """What enrolment left here; raises `ConfigurationError` saying what to do."""
    path = os.path.join(folder, FILE)
    try:
        with open(path, encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigurationError(
                    f"{path} can be read by others than its owner: its secrets are void", _NEXT
                )
            record = json.load(file)
    except FileNotFoundError:
        raise ConfigurationError(
            f"this server belongs to no pool yet: {path} does not exist",
            "make a token on the controller (outboard tokens create --join node), then here:"
            " outboard join TOKEN URL",
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", _NEXT) from error
    try:
        identity = Identity(
            name=record["name"],
            token=record["token"],
            node_key=record["node_key"],
            authority_pem=record["authority_pem"],
            controllers=tuple(record["controllers"]),
            keys=tuple(record["keys"]),
        )
        if len(bytes.fromhex(identity.node_key)) != 32:
            raise ValueError("node_key is not 32 bytes")
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path} is not whole: {error}", _NEXT) from error
    return identity
