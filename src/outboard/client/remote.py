"""Reaching a controller over the network: TLS with the pool's own authority, and nothing else.

SPDX-License-Identifier: Apache-2.0

Standard library alone: `outboard run` goes through here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl

from outboard.client.http import ANSWER_TIMEOUT_S, PoolConnection
from outboard.errors import ConfigurationError, OutboardError, PoolUnreachable
from outboard.model.token import authority_mark

CONNECT_TIMEOUT_S = 5.0
DEFAULT_PORT = 7860


def parse_url(url: str, source: str) -> tuple[str, int]:
    """Host and port of `https://HOST[:PORT]`; raises `ConfigurationError` naming `source`."""
    scheme, separator, rest = url.partition("://")
    place = rest.rstrip("/")
    host, colon, port = place.rpartition(":")
    if place.endswith("]") or not colon:
        host, port = place, str(DEFAULT_PORT)
    good = scheme == "https" and separator and host and "/" not in place and port.isdecimal()
    if not good or not 0 < int(port) < 65536:
        raise ConfigurationError(
            f"{source}: the pool is {url!r}",
            "write https://HOST:PORT, or unix:/path/to/pool.sock; without it this machine's own"
            " pool is used",
        )
    return host.strip("[]"), int(port)


def parse_urls(urls: str, source: str) -> list[tuple[str, int]]:
    """Host and port of each controller of a pool: one URL, or several with commas between."""
    return [parse_url(url.strip(), source) for url in urls.split(",")]


def trusting(authority_pem: str) -> ssl.SSLContext:
    """A context that trusts this authority alone; raises `ConfigurationError` if it is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=authority_pem)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            f"the pool's authority is not a certificate: {error}",
            "sign in again: outboard login URL",
        ) from error
    return context


def connect(url: str, authority_pem: str, token: str, source: str) -> PoolConnection:
    """A connection to the first controller of `url` that answers; raises `PoolUnreachable` saying
    what is in the way."""
    return PoolConnection(_open_one(url, trusting(authority_pem), source), url, token)


def fetch_authority(url: str, mark: str, source: str) -> str:
    """The authority's PEM from a controller that is not trusted yet, if its hash begins so.

    Nothing secret is sent over that connection.
    """
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    connection = PoolConnection(_open_one(url, blind, source), url)
    try:
        pem = str(connection.call("GET", "/v1/ca")["authority"])
        found = authority_mark(ssl.PEM_cert_to_DER_cert(pem))
    except (KeyError, ValueError) as error:
        raise PoolUnreachable(
            f"{url} is not a controller of Outboard", "check the address"
        ) from error
    finally:
        connection.close()
    if found != mark:
        raise ConfigurationError(
            f"{url} is not the pool that this token is for: its authority is {found}, the token"
            f" names {mark}",
            "check the address; if it is right, somebody may be between you and the controller",
        )
    return pem


def read_authority(path: str, source: str) -> str:
    """The PEM in a file that a setting names."""
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{source}: the authority's file {path} cannot be read: {error}",
            "sign in again: outboard login URL",
        ) from error


def _open_one(urls: str, context: ssl.SSLContext, source: str) -> socket.socket:
    """A connection to the first that answers; raises what keeps the last from it."""
    places = parse_urls(urls, source)
    for host, port in places[:-1]:
        with contextlib.suppress(PoolUnreachable):
            return _open(host, port, context, source)
    return _open(*places[-1], context, source)


def _open(host: str, port: int, context: ssl.SSLContext, source: str) -> socket.socket:
    try:
        plain = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
    except OSError as error:
        raise _unreachable(
            host,
            port,
            source,
            f"{error.strerror or error}",
            f"check that the controller runs and that {host} port {port} can be reached; to use"
            " this machine's own pool, take the setting away",
        ) from error
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.settimeout(ANSWER_TIMEOUT_S)
        return context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        plain.close()
        raise _unreachable(
            host,
            port,
            source,
            f"its certificate is refused: {error.verify_message}",
            "use the name that the controller was made with (outboard controller init --name), set"
            " the clock, or sign in again: outboard login URL",
        ) from error
    except OSError as error:
        plain.close()
        raise _unreachable(
            host, port, source, f"no TLS there: {error.strerror or error}", "check the port"
        ) from error


def _unreachable(host: str, port: int, source: str, why: str, hint: str) -> OutboardError:
    return PoolUnreachable(
        f"the pool https://{host}:{port} (from {source}) does not answer: {why}", hint
    )
