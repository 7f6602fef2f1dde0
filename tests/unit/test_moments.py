"""Moments there and back.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import datetime as dt

from outboard.moments import iso, microseconds


def test_a_time_without_a_zone_is_utc() -> None:
    naive = dt.datetime.fromisoformat("2026-11-01T08:00:00.000001")
    east = dt.timezone(dt.timedelta(hours=3))
    assert microseconds(naive) == 1_793_520_000_000_001
    assert microseconds(naive) == microseconds(dt.datetime(2026, 11, 1, 11, 0, 0, 1, east))


def test_times_are_shown_in_utc_and_none_as_none() -> None:
    assert iso(1_793_520_000_123_456) == "2026-11-01T08:00:00.123+00:00"
    assert iso(-1_000) == "1969-12-31T23:59:59.999+00:00"
    assert iso(None) is None
