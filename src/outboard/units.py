"""Numbers as people write them: memory in MiB, fractions of a GPU, durations.

SPDX-License-Identifier: Apache-2.0

A fraction is kept in millionths, so that it never passes through a float.
"""

from __future__ import annotations

import re

from outboard.errors import UsageError

MIB = 1 << 20
GIB = 1 << 30
MILLION = 1_000_000

_FRACTION = re.compile(r"(\d*)(?:\.(\d*))?")
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")
_MEMORY = re.compile(r"(\d+)(MiB|M|GiB|G)?", re.IGNORECASE)


def parse_fraction(text: str) -> int:
    """`0.314` as millionths: above 0, at most 1, not finer than a millionth."""
    match = _FRACTION.fullmatch(text.strip())
    hint = "give a fraction of each GPU's memory above 0 and at most 1, for example -p 0.25"
    if match is None or not (match[1] or match[2]):
        raise UsageError(f"-p {text}: not a fraction", hint)
    digits = match[2] or ""
    if digits[6:].strip("0"):
        raise UsageError(f"-p {text}: finer than a millionth", hint)
    millionths = int(match[1] or "0") * MILLION + int(digits[:6].ljust(6, "0"))
    if not 0 < millionths <= MILLION:
        raise UsageError(f"-p {text}: outside of 0 to 1", hint)
    return millionths


def parse_memory_bytes(text: str) -> int:
    """`512`, `512M`, `2G` (binary units, MiB where none is given) as bytes, above 0."""
    match = _MEMORY.fullmatch(text.strip())
    hint = "give the memory of each GPU in MiB, for example -m 4000, or with a unit: -m 4G"
    if match is None:
        raise UsageError(f"-m {text}: not an amount of memory", hint)
    unit = GIB if (match[2] or "M").upper().startswith("G") else MIB
    amount_bytes = int(match[1]) * unit
    if not 0 < amount_bytes < 1 << 62:
        raise UsageError(f"-m {text}: out of range", hint)
    return amount_bytes


def parse_duration_s(text: str) -> float:
    """`90`, `90s`, `5m`, `1h30m`, `2d` as seconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise UsageError(f"{text}: not a duration", "write it as 90s, 5m, 1h30m or 2d")
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def format_mib(amount_bytes: int) -> str:
    """Bytes as `4096 MiB`, rounded down: what is shown can always be had."""
    return f"{amount_bytes // MIB} MiB"


def format_fraction(millionths: int) -> str:
    """Millionths as the shortest decimal: 250000 is `0.25`."""
    whole, rest = divmod(millionths, MILLION)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")


def format_duration(seconds: float) -> str:
    """Seconds as `3m12s`, `2h05m`, `4s`."""
    total = max(0, int(seconds))
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{total // 60}m{total % 60:02d}s"
    return f"{total // 3600}h{total % 3600 // 60:02d}m"
