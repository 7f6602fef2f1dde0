"""A service's state, why it is in it, and how that is said in one line.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum

from outboard.model.session_file import SessionFile
from outboard.units import format_duration, format_mib


class State(Enum):
    """waiting → active ⇄ standby; lost goes back to active by itself, ended only when told."""

    WAITING = "waiting"
    ACTIVE = "active"
    STANDBY = "standby"
    LOST = "lost"
    ENDED = "ended"


@dataclass(slots=True)
class Condition:
    """What there is to say about a service. Times are seconds since the epoch."""

    state: State = State.WAITING
    reason: str = "it has just started"
    next_try_unix: float = 0.0
    since_unix: float = field(default_factory=time.time)
    session: SessionFile | None = None  # the last one, also in standby: its inventory
    software: bool = False
    programs: int = 0
    unused_since_unix: float = 0.0
    lease_until_unix: float = 0.0
    ends_unix: float | None = None  # when the pool ends the session, whoever uses it
    ends_soon: bool = False  # so soon that those who use it are told
    notice: str = ""  # what the pool says to who holds it: that it is idle, and for how long yet
    pending: str = ""  # an option that was changed and is not in force yet

    def become(self, state: State, reason: str = "") -> None:
        """Change the state; the reason is what the last sentence of the status line says."""
        if state is not self.state:
            self.since_unix = time.time()
            self.ends_soon, self.notice = False, ""
        self.state = state
        self.reason = reason
        self.next_try_unix = 0.0

    def line(self, now_unix: float) -> str:
        """The unit's status line."""
        text = self._text(now_unix)
        return f"{text}; {self.pending}" if self.pending else text

    def _text(self, now_unix: float) -> str:
        if self.state is State.ACTIVE:
            return "; ".join(
                [
                    self.devices(),
                    self._use(now_unix),
                    f"lease until {_clock(self.lease_until_unix)}",
                    *self._end(),
                    *(text for text in (self.notice, self.reason) if text),
                ]
            )
        if self.state is State.STANDBY:
            return f"standby: {self.reason}; the next CUDA program gets GPUs again"
        if self.state is State.ENDED:
            return f"ended: {self.reason}"
        what = "waiting for the pool" if self.state is State.WAITING else "lost the GPUs"
        text = f"{what}: {self.reason}"
        if self.next_try_unix > now_unix:
            text += f"; next try in {format_duration(self.next_try_unix - now_unix + 0.999)}"
        return text

    def ending(self, now_unix: float) -> str:
        """What those who use the GPUs are told when the session's time is nearly up; else empty."""
        if not self.ends_soon or self.ends_unix is None:
            return ""
        left = format_duration(max(0.0, self.ends_unix - now_unix))
        return (
            f"the GPU session ends in {left}, as the pool limits its time;"
            " programs that run then lose their GPUs"
        )

    def devices(self) -> str:
        """The GPUs in words: `2 GPUs: NAME, 1024 MiB each, on gpu1, gpu2`."""
        if self.session is None or not self.session.devices:
            return "no GPUs"
        devices = self.session.devices
        first = devices[0]
        each = " each" if len(devices) > 1 else ""
        count = "1 GPU" if len(devices) == 1 else f"{len(devices)} GPUs"
        nodes = ", ".join(node.name for node in self.session.nodes)
        return f"{count}: {first.name}, {format_mib(first.share_bytes)}{each}, on {nodes}"

    def to_json(self, now_unix: float) -> dict[str, object]:
        """For programs, and for `outboard status`."""
        session = self.session
        ends_unix = self.ends_unix if self.state is State.ACTIVE else None
        return {
            "state": self.state.value,
            "reason": self.reason,
            "line": self.line(now_unix),
            "since": _iso(self.since_unix),
            "session": session.session if session is not None else None,
            "software": self.software,
            "devices": [
                {**device.to_json(), "node": session.nodes[device.node].name}
                for device in session.devices
            ]
            if session is not None
            else [],
            "programs": self.programs if self.state is State.ACTIVE else None,
            "unused_s": int(now_unix - self.unused_since_unix)
            if self.state is State.ACTIVE and not self.programs
            else None,
            "lease_until": _iso(self.lease_until_unix) if self.state is State.ACTIVE else None,
            "ends": _iso(ends_unix) if ends_unix is not None else None,
            "ends_in_s": max(0, int(ends_unix - now_unix)) if ends_unix is not None else None,
            "notice": self.notice or None,
            "pending": self.pending or None,
        }

    def _use(self, now_unix: float) -> str:
        if self.programs:
            return f"{self.programs} program{'' if self.programs == 1 else 's'}"
        return f"unused for {format_duration(now_unix - self.unused_since_unix)}"

    def _end(self) -> list[str]:
        if self.ends_unix is None:
            return []
        return [f"the pool ends the session at {_clock(self.ends_unix)}"]


def _clock(unix: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(unix))


def _iso(unix: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix))
