"""A TLS connection to a controller that is looked at: its certificate, its clock, its round trip.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime

from outboard.client import remote
from outboard.errors import PoolUnreachable

_TIMEOUT_S = 5.0
_IP_MTU = 14  # <linux/in.h>; Python has no name for it
_IPV6_MTU = 24
_MOST_BYTES = 65536


class Contact:
    """One connection; raises `PoolUnreachable` saying what is in the way."""

    def __init__(self, host: str, port: int, authority_pem: str) -> None:
        self.name = f"{host} port {port}"
        self.url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        hint = f"check that the controller runs, and the firewalls between: {host} port {port}"
        try:
            plain = socket.create_connection((host, port), _TIMEOUT_S)
        except OSError as error:
            raise PoolUnreachable(f"{self.name}: {error.strerror or error}", hint) from error
        try:
            context = remote.trusting(authority_pem)
            self._socket = context.wrap_socket(plain, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            plain.close()
            raise PoolUnreachable(
                f"{self.name}: its certificate is refused: {error.verify_message}",
                "use a name that the controller was made with (outboard controller init --name),"
                " set the clock, or sign in again: outboard login URL",
            ) from error
        except OSError as error:
            plain.close()
            raise PoolUnreachable(
                f"{self.name}: no TLS there: {error.strerror or error}", "check the port"
            ) from error
        self._host = host

    def ask(self) -> tuple[float, float]:
        """The controller's clock less ours, and how long the answer took, both in seconds.

        The clock is known to a second: HTTP's `Date` has no more.
        """
        began, began_unix = time.perf_counter(), time.time()
        head = b""
        try:
            self._socket.sendall(f"GET /healthz HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
            while b"\r\n\r\n" not in head and len(head) < _MOST_BYTES:
                more = self._socket.recv(4096)
                if not more:
                    raise ConnectionResetError("closed")
                head += more
            took_s = time.perf_counter() - began
            lines = head.decode("latin-1").split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
            self._skip_body(head, int(fields.get("content-length", "0")))
            theirs_unix = parsedate_to_datetime(fields["date"]).timestamp()
        except (OSError, KeyError, ValueError) as error:
            raise PoolUnreachable(
                f"{self.name}: that is no controller's answer: {error}", "check the address"
            ) from error
        # Its seconds are cut off: on average it is half a second later there.
        return theirs_unix + 0.5 - (began_unix + took_s / 2), took_s

    def expires(self) -> float:
        """When the certificate that it shows ends (unix seconds)."""
        shown = self._socket.getpeercert() or {}
        return float(ssl.cert_time_to_seconds(str(shown["notAfter"])))

    def mtu(self) -> int:
        """The largest packet that the way to it takes, as far as the kernel knows."""
        return mtu_of(self._socket)

    def close(self) -> None:
        self._socket.close()

    def _skip_body(self, received: bytes, size: int) -> None:
        left = size - len(received.partition(b"\r\n\r\n")[2])
        while left > 0:
            left -= len(self._socket.recv(min(left, 4096))) or left


class Reach:
    """Connections to the controllers of a pool that answer, and what keeps from the others."""

    def __init__(self, places: Iterable[tuple[str, int]], authority_pem: str) -> None:
        self.contacts: list[Contact] = []
        self.silent: list[PoolUnreachable] = []
        for host, port in places:
            try:
                self.contacts.append(Contact(host, port, authority_pem))
            except PoolUnreachable as error:
                self.silent.append(error)

    def close(self) -> None:
        for contact in self.contacts:
            contact.close()


def mtu_of(connected: socket.socket) -> int:
    """The path's MTU in bytes."""
    if connected.family == socket.AF_INET6:
        return connected.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
    return connected.getsockopt(socket.IPPROTO_IP, _IP_MTU)


def authority_expires(pem: str) -> float:
    """When an authority's certificate ends (unix seconds)."""
    (shown, *_) = remote.trusting(pem).get_ca_certs()
    return float(ssl.cert_time_to_seconds(str(shown["notAfter"])))
