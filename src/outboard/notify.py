"""What a daemon and systemd tell each other: readiness, status, watchdog, listening sockets.

SPDX-License-Identifier: Apache-2.0

The protocols of sd_notify(3) and sd_listen_fds(3). Without systemd nothing is told and nothing had.
"""

from __future__ import annotations

import os
import socket

_FIRST_PASSED_FD = 3


class Notifier:
    """Tells the service manager, if there is one."""

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.supervised = bool(address)
        self.watchdog_s = _watchdog_s()

    def tell(self, *lines: str) -> None:
        """Send assignments such as `READY=1`; a manager that does not listen is no failure."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            try:
                channel.connect(self._address)
                channel.send("\n".join(lines).encode())
            except OSError:
                pass

    async def watch(self) -> None:
        """Show signs of life, as long as the loop turns, until cancelled."""
        import asyncio

        while True:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s or 3600.0)


def passed_listener() -> socket.socket | None:
    """The listening socket that systemd made and keeps, or None where there is none."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal() or int(count) < 1:
        return None
    os.set_inheritable(_FIRST_PASSED_FD, False)
    return socket.socket(fileno=_FIRST_PASSED_FD)


def _watchdog_s() -> float | None:
    """How often to show a sign of life: half of what systemd allows; None if it does not watch."""
    limit_us, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
    if not limit_us.isdecimal() or int(limit_us) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(limit_us) / 2_000_000
