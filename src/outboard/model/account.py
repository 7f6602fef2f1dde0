"""Accounts: what was held of devices, exactly, and what was used of it, summed by keys.

SPDX-License-Identifier: Apache-2.0

*Held* is the sum over spans of bytes times the microseconds that a span shares with the interval:
whole numbers, so that sums by user and sums by device are the same to the last unit.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from outboard.errors import MalformedRequest
from outboard.moments import iso, microseconds
from outboard.units import MILLION

DAY_US = 86_400_000_000
KEYS = ("user", "device", "node", "session", "host", "day")
# Of what was used there is more to say: whose process it was.
USED_KEYS = (*KEYS, "uid", "process")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of one device, held by one user over one time; `ended_us` None: still."""

    user_name: str
    node: str
    idx: int
    session: str
    host: str | None
    share_bytes: int
    capacity_bytes: int
    started_us: int
    ended_us: int | None


@dataclass(frozen=True, slots=True)
class Process:
    """What a worker counted for one program on one device; None is "not known"."""

    user_name: str
    node: str
    idx: int
    session: str
    host: str | None
    worker: str
    uid: int
    pid: int
    program: str
    started_us: int
    ended_us: int | None
    busy_us: int | None
    calls: int | None
    peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class Held:
    """One line of an account: its keys, byte-microseconds, and GPU time weighted by share.

    `gpu_ppm_us` is in millionths of a GPU times microseconds; a share is rounded down to whole
    millionths once, so that these sums match to the last unit as well.
    """

    keys: tuple[str, ...]
    byte_us: int
    gpu_ppm_us: int


@dataclass(frozen=True, slots=True)
class Used:
    """One line of what was used: device time, calls, the most that one process held at once."""

    keys: tuple[str, ...]
    busy_us: int
    calls: int
    peak_bytes: int
    processes: int


def sum_held(spans: Iterable[Span], since_us: int, until_us: int, by: Sequence[str]) -> list[Held]:
    """What was held in [since, until), grouped by some of `KEYS`, in the order of the keys.

    Days are UTC's.
    """
    sums: dict[tuple[str, ...], list[int]] = {}
    for span in spans:
        first = max(since_us, span.started_us)
        last = until_us if span.ended_us is None else min(until_us, span.ended_us)
        for start, end in _days(first, last) if "day" in by else [(first, last)]:
            if end <= start:
                continue
            total = sums.setdefault(_keys(span, start, by), [0, 0])
            total[0] += span.share_bytes * (end - start)
            total[1] += span.share_bytes * MILLION // max(1, span.capacity_bytes) * (end - start)
    return [Held(keys, total[0], total[1]) for keys, total in sorted(sums.items())]


def sum_used(
    processes: Iterable[Process], since_us: int, until_us: int, by: Sequence[str], now_us: int
) -> list[Used]:
    """What was used in [since, until), grouped by some of `USED_KEYS`, in the order of the keys.

    A process that ran before, after or past midnight counts by the part of its time: workers count
    sums, not when. What they did not count is left out.
    """
    sums: dict[tuple[str, ...], list[int]] = {}
    workers: dict[tuple[str, ...], set[str]] = {}
    for one in processes:
        ended_us = max(now_us if one.ended_us is None else one.ended_us, one.started_us + 1)
        first, last = max(since_us, one.started_us), min(until_us, ended_us)
        for start, end in _days(first, last) if "day" in by else [(first, last)]:
            keys = _keys(one, start, by)
            total = sums.setdefault(keys, [0, 0, 0])
            part, whole = max(0, end - start), ended_us - one.started_us
            total[0] += (one.busy_us or 0) * part // whole
            total[1] += (one.calls or 0) * part // whole
            total[2] = max(total[2], one.peak_bytes or 0)
            workers.setdefault(keys, set()).add(one.worker)
    return [
        Used(keys, total[0], total[1], total[2], len(workers[keys]))
        for keys, total in sorted(sums.items())
    ]


def interval_us(
    since: dt.datetime | None, until: dt.datetime | None, now_us: int
) -> tuple[int, int]:
    """What an account is asked for: until now, and a day long, where nothing is said."""
    last_us = now_us if until is None else microseconds(until)
    return last_us - DAY_US if since is None else microseconds(since), last_us


def check_keys(by: Sequence[str], allowed: Sequence[str]) -> None:
    """Raises `MalformedRequest` for keys that accounts do not have, or have twice."""
    if [key for key in by if key not in allowed] or len(set(by)) != len(by):
        raise MalformedRequest(
            f"usage cannot be grouped by {', '.join(by)}", f"use {', '.join(allowed)}"
        )


def account_json(
    since_us: int, until_us: int, by: Sequence[str], held: Iterable[Held], used: Iterable[Used]
) -> dict[str, object]:
    """The API's answer."""

    def told(line: Held | Used) -> dict[str, Any]:
        amounts = asdict(line)
        return {**dict(zip(by, amounts.pop("keys"), strict=True)), **amounts}

    return {
        "since": iso(since_us),
        "until": iso(until_us),
        "by": list(by),
        "held": [{**told(line), "gpu_s": round(line.gpu_ppm_us / 1e12, 3)} for line in held],
        "used": [told(line) for line in used],
    }


def _keys(one: Span | Process, start_us: int, by: Sequence[str]) -> tuple[str, ...]:
    found: dict[str, object] = {
        "user": one.user_name,
        "device": f"{one.node}/{one.idx}",
        "node": one.node,
        "session": one.session,
        "host": one.host or "",
        "day": _day(start_us) if "day" in by else "",
    }
    if isinstance(one, Process):
        found["uid"] = one.uid
        found["process"] = f"{one.pid} {one.program}".strip()
    return tuple(str(found[key]) for key in by)


def _days(first_us: int, last_us: int) -> list[tuple[int, int]]:
    """An interval cut at midnight UTC."""
    pieces = []
    while first_us < last_us:
        midnight = (first_us // DAY_US + 1) * DAY_US
        pieces.append((first_us, min(last_us, midnight)))
        first_us = midnight
    return pieces


def _day(at_us: int) -> str:
    return dt.datetime.fromtimestamp(at_us // 1_000_000, dt.UTC).strftime("%Y-%m-%d")
