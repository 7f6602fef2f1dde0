"""What a program printed, without what changes from one run to the next.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import re
from collections import Counter

_NUMBER = r"[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_UNITS = r"[mun\u00b5\u03bc]?s|[mun]?sec|(?:milli|micro|nano)?seconds?|minutes?|clocks?|cycles?"
_NAMES = (
    r"times?|took|elapsed|durations?|bandwidth|throughput|speed-?up|performance|latency|overhead"
    r"|fps|[gmt]?flops?|[a-z]+/s|clocks/?\w*"
)
# Each with the reason why two runs of one program on one GPU print it differently.
_CHANGING = [
    # Addresses: the allocator and the loader choose them.
    r"\b0x[0-9a-fA-F]{5,}\b",
    # Rates: how fast it went.
    rf"{_NUMBER}\s*[\[(]?\s*[A-Za-z]+/(?:s|sec|second)\b",
    rf"{_NUMBER}\s*[KMGTP]?(?:flops?|bps|fps)\b",
    # Durations: likewise.
    rf"{_NUMBER}\s*[\[(]?\s*(?:{_UNITS})\b",
    # Either of them behind its name: "Time: 0.3", "GB/s = 12".
    rf"\b(?:{_NAMES})\b[^\d\n]{{0,40}}?{_NUMBER}",
    rf"{_NUMBER}x speed",
    # Dates and times of day.
    r"\b\d{4}-\d\d-\d\d\b|\b\d\d:\d\d(?::\d\d(?:\.\d+)?)?\b",
    # Processes and threads: the kernel numbers them.
    r"\b(?:pid|tid|process|thread id)\b[^\w\n]{0,4}\d+",
    # Free memory: other programs run on this GPU at the same time.
    rf"\b(?:free|available|used)\b[^\d\n]{{0,30}}?{_NUMBER}",
]
_CHANGES = re.compile("|".join(f"(?:{pattern})" for pattern in _CHANGING), re.IGNORECASE)
# Lines in which a program judges its own result.
_JUDGES = re.compile(
    r"pass|fail|success|error|mismatch|\bmatch|correct|wrong|verif|identical|\bok\b|\bnan\b",
    re.IGNORECASE,
)


def settled(text: str, folder: str) -> list[str]:
    """Its lines with '#' for what changes; `folder`, where it ran, is written as '.'."""
    lines = []
    for line in text.replace(folder, ".").split("\n"):
        last = line.rstrip("\r").rpartition("\r")[2]  # what a progress bar ended with
        if words := _CHANGES.sub("#", last).split():
            lines.append(" ".join(words))
    return lines


def judgements(lines: list[str]) -> Counter[str]:
    """What it says of its own result, without any number, in any order."""
    return Counter(re.sub(_NUMBER, "#", line) for line in lines if _JUDGES.search(line))


def first_difference(native: list[str], remote: list[str]) -> str:
    """The first line in which both differ; empty if they are the same."""
    for left, right in zip(native, remote, strict=False):
        if left != right:
            return f"{left[:160]!r} became {right[:160]!r}"
    missing, extra = native[len(remote) :], remote[len(native) :]
    if missing:
        return f"missing: {missing[0][:160]!r}"
    return f"beyond native's: {extra[0][:160]!r}" if extra else ""
