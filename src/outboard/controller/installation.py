"""A controller's own files: authority, server certificate, signing key, pool key, configuration.

SPDX-License-Identifier: Apache-2.0

    /var/lib/outboard/controller/    0700, of the controller's user
        authority.pem  authority.key   the pool's certificate authority
        server.pem     server.key      what this controller shows; made anew before it expires
        signing.key                    Ed25519: what grants are signed with, this controller's own
        pool.key                       what seals the nodes' keys in the ledger, all controllers'
        controller.json                name, addresses, database
"""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import ssl
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from cryptography import x509

from outboard.errors import ConfigurationError
from outboard.ledger import subjects, tokens
from outboard.ledger.database import Database
from outboard.ledger.rows import insert_new, locked
from outboard.ledger.schema import controllers
from outboard.ledger.transaction import Transaction
from outboard.pki.authority import Authority, Credential, read_credential, write_credential
from outboard.pki.sealing import KEY_BYTES, SealingKey
from outboard.pki.signing import SigningKey

_RENEW_BEFORE = dt.timedelta(days=90)
_NEXT = "make it, as the controller's user: outboard controller init"


@dataclass(frozen=True, slots=True)
class ControllerConfiguration:
    """What `init` decided. `addresses` are the URLs that clients and agents are told to call."""

    name: str
    names: tuple[str, ...]
    listen: str
    addresses: tuple[str, ...]
    database: str


@dataclass(frozen=True, slots=True)
class Installation:
    """A controller's files, read."""

    folder: str
    configuration: ControllerConfiguration
    authority: Authority
    signing: SigningKey
    sealing: SealingKey

    def server_context(self) -> ssl.SSLContext:
        """What the API is served with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.path("server.pem"), self.path("server.key"))
        return context

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def bequest(self) -> dict[str, str] | None:
        """What a controller that joins needs to be one of this pool; None if the ledger can have
        no other."""
        if self.configuration.database.startswith("sqlite"):
            return None
        return {
            "authority": self.authority.credential.certificate_pem.decode(),
            "authority_key": self.authority.credential.key_pem.decode(),
            "pool_key": _read_secret(self.path("pool.key")).hex(),
            "database": self.configuration.database,
        }


@dataclass(frozen=True, slots=True)
class Heritage:
    """What all controllers of a pool have in common, from the one by which this one joined."""

    authority: Credential
    pool_key: bytes


def create_installation(
    folder: str, configuration: ControllerConfiguration, heritage: Heritage | None = None
) -> Installation:
    """Make everything, but what it has from its pool; raises `ConfigurationError` if there is a
    controller in the folder already.

    The configuration is written last: a half-made folder is no controller, and may be made again.
    """
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        require_new(folder)
        now = dt.datetime.now(dt.UTC)
        authority = (
            Authority.create(f"Outboard pool of {configuration.name}", now)
            if heritage is None
            else Authority(heritage.authority)
        )
        pool_key = os.urandom(KEY_BYTES) if heritage is None else heritage.pool_key
        write_credential(folder, "authority", authority.credential)
        write_credential(folder, "server", authority.issue_server(configuration.names, now))
        _write_secret(os.path.join(folder, "signing.key"), SigningKey.generate().seed)
        _write_secret(os.path.join(folder, "pool.key"), pool_key)
        path = os.path.join(folder, "controller.json")
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(asdict(configuration), file, indent=2)
            file.write("\n")
        os.rename(f"{path}.new", path)
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be made a controller: {error.strerror}",
            "run it as root, or name a folder of your own: --state FOLDER",
        ) from error
    return read_installation(folder)


def require_new(folder: str) -> None:
    """Raises `ConfigurationError` if there is a controller in the folder already."""
    if os.path.exists(os.path.join(folder, "controller.json")):
        raise ConfigurationError(
            f"{folder} is a controller already",
            "start it (outboard controller), or name another folder: --state FOLDER",
        )


def read_installation(folder: str) -> Installation:
    """Read what `create_installation` made; a certificate that ends soon is made anew."""
    try:
        with open(os.path.join(folder, "controller.json"), encoding="utf-8") as file:
            told = json.load(file)
        configuration = ControllerConfiguration(
            name=str(told["name"]),
            names=tuple(told["names"]),
            listen=str(told["listen"]),
            addresses=tuple(told["addresses"]),
            database=str(told["database"]),
        )
        signing = SigningKey(_read_secret(os.path.join(folder, "signing.key")))
        sealing = SealingKey(_read_secret(os.path.join(folder, "pool.key")))
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{folder} is no controller: {error.filename} is missing", _NEXT
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{folder} cannot be read: {error}", _NEXT) from error
    authority = Authority(read_credential(folder, "authority"))
    _renew_server(folder, authority, configuration.names)
    return Installation(folder, configuration, authority, signing, sealing)


def announce(database: Database, installation: Installation) -> None:
    """Write this controller's public key into the ledger, so that agents learn it.

    Raises `ConfigurationError` for one that was removed, or whose name another one has.
    """
    configuration, public = installation.configuration, installation.signing.public.hex()

    def write(tx: Transaction) -> None:
        address = configuration.addresses[0]
        row = {"name": configuration.name, "joined_us": tx.now_us}
        if not insert_new(tx, controllers, [{**row, "public_key": public, "seen_us": tx.now_us}]):
            (before,) = locked(tx, controllers, controllers.c.name == configuration.name)
            if (before.public_key == public) == (before.revoked_us is not None):
                what = "was removed from" if before.revoked_us else "is another controller of"
                raise ConfigurationError(
                    f"{configuration.name} {what} this pool",
                    "join it under a name of its own: outboard controller join URL --name NAME",
                )
        tx.connection.execute(
            controllers.update()
            .where(controllers.c.name == configuration.name)
            .values(address=address, public_key=public, seen_us=tx.now_us, revoked_us=None)
        )
        tx.changed("controller", configuration.name)

    database.write(write)


def first_token(database: Database, user: str, mark: str) -> str:
    """An administrator of the new pool, and a token with which everything can be done."""

    def write(tx: Transaction) -> str:
        subjects.ensure_user(tx, user)
        scopes = ("admin", "use", "read")
        return tokens.create_token(tx, ("user", user), scopes, note="first", ca_hash=mark)

    return database.write(write)


def own_names() -> list[str]:
    """Names and addresses under which this machine may be reached, for its certificate."""
    names = [socket.gethostname(), socket.getfqdn(), "localhost", "127.0.0.1", "::1"]
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        # Which address the default route leaves from: nothing is sent (documentation addresses).
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((target, 9))
                names.append(probe.getsockname()[0])
            except OSError:
                pass  # no route of that family
    return list(dict.fromkeys(name for name in names if name))


def _renew_server(folder: str, authority: Authority, names: Iterable[str]) -> None:
    now = dt.datetime.now(dt.UTC)
    shown = read_credential(folder, "server")
    ends = x509.load_pem_x509_certificate(shown.certificate_pem).not_valid_after_utc
    if ends - now < _RENEW_BEFORE:
        write_credential(folder, "server", authority.issue_server(names, now))


def _write_secret(path: str, secret: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        os.fchmod(descriptor, 0o600)
        file.write(secret.hex() + "\n")


def _read_secret(path: str) -> bytes:
    with open(path, encoding="ascii") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise ConfigurationError(
                f"{path} can be read by others than its owner", f"chmod 600 {path}"
            )
        secret = bytes.fromhex(file.read().strip())
    if len(secret) != KEY_BYTES:
        raise ConfigurationError(f"{path} does not hold {KEY_BYTES} bytes in hex", _NEXT)
    return secret
