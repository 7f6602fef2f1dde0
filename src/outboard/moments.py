"""Moments: microseconds since 1970 to times of the calendar, UTC, and back.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import datetime as dt

_EPOCH = dt.datetime.fromtimestamp(0, dt.UTC)
_US = dt.timedelta(microseconds=1)


def microseconds(moment: dt.datetime) -> int:
    """Since 1970; a time without a zone is UTC."""
    return ((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)) - _EPOCH) // _US


def iso(at_us: int | None) -> str | None:
    """As ISO 8601, UTC."""
    return None if at_us is None else (_EPOCH + at_us * _US).isoformat(timespec="milliseconds")
