"""Checks of a controller: its files and their modes, its certificates, whether it answers.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
import ssl
from typing import Any

from outboard.doctor.contact import Contact
from outboard.doctor.machine import free_bytes
from outboard.doctor.network import certificate
from outboard.doctor.place import Place
from outboard.doctor.registry import CONTROLLER, Finding, check, failure, good, skipped, warning
from outboard.errors import ConfigurationError, PoolUnreachable
from outboard.units import MIB, format_mib

_SECRETS = ("authority.key", "server.key", "signing.key", "pool.key")
_START = "systemctl start outboard-controller, or: outboard controller"
_ROOM_FACTOR = 2  # a backup beside it, and SQLite's log


@check("controller's files", CONTROLLER)
def files(place: Place) -> Finding:
    """All are there, and nobody else can read the secrets."""
    configuration = read_configuration(place)
    for name in _SECRETS:
        path = os.path.join(place.controller_state, name)
        if os.stat(path).st_mode & 0o077:
            return failure(f"{path} can be read by others", f"chmod 600 {path}")
    return good(f"{place.controller_state}: {', '.join(configuration['addresses'])}")


def read_configuration(place: Place) -> dict[str, Any]:
    """What `controller init` decided; raises `ConfigurationError`."""
    path = os.path.join(place.controller_state, "controller.json")
    hint = "run the doctor as the controller's user: sudo outboard doctor"
    try:
        with open(path, encoding="utf-8") as file:
            told = json.load(file)
        return {name: told[name] for name in ("listen", "addresses", "database")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}", hint) from error


@check("controller answers", CONTROLLER, needs="controller's files")
def answers(place: Place) -> Finding:
    """Its port is listened on, by itself."""
    listen = str(read_configuration(place)["listen"])
    host, _, port = listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
    try:
        contact = Contact(host, int(port), _authority(place))
    except PoolUnreachable as error:
        return warning(f"{listen}: {error.message}", _START)
    contact.close()
    return good(f"{listen}, with the pool's own certificate")


@check("controller's certificate", CONTROLLER, needs="controller answers")
def shown(place: Place) -> Finding:
    """What it shows; what lies on disk is made anew when it starts."""
    listen = str(read_configuration(place)["listen"])
    host, _, port = listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))
    contact = Contact(host, int(port), _authority(place))
    try:
        return certificate("the controller's", contact.expires(), "here, ")
    finally:
        contact.close()


@check("authority's certificate", CONTROLLER, needs="controller's files")
def authority(place: Place) -> Finding:
    """It cannot be made anew without all others learning of it: it is to be seen in time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=_authority(place))
    (found, *_) = context.get_ca_certs()
    ends_unix = float(ssl.cert_time_to_seconds(str(found["notAfter"])))
    return certificate("the pool's authority", ends_unix, "")


@check("ledger", CONTROLLER, needs="controller's files")
def ledger(place: Place) -> Finding:
    """Its file has room to grow and to be backed up."""
    url = str(read_configuration(place)["database"])
    scheme, _, path = url.partition("://")
    if scheme != "sqlite":
        return skipped(f"{scheme}: whether it answers, /readyz says")
    path = path[1:]
    if not os.path.exists(path):
        return failure(f"{path} does not exist", "outboard controller restore FILE")
    size, free = os.path.getsize(path), free_bytes(os.path.dirname(path))
    text = f"{path}: {max(1, size // MIB)} MiB, {format_mib(free)} are free beside it"
    if free < _ROOM_FACTOR * size:
        return warning(text, f"make room: df -h {os.path.dirname(path)}")
    return good(text)


def _authority(place: Place) -> str:
    with open(os.path.join(place.controller_state, "authority.pem"), encoding="utf-8") as file:
        return file.read()
