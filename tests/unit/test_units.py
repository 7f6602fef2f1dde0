"""Numbers as people write them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboard.errors import UsageError
from outboard.units import (
    format_duration,
    format_fraction,
    format_mib,
    parse_duration_s,
    parse_fraction,
    parse_memory_bytes,
)


@pytest.mark.parametrize(
    ("text", "millionths"),
    [("1", 1_000_000), ("1.0", 1_000_000), (".5", 500_000), ("0.314", 314_000), ("0.05", 50_000)],
)
def test_fractions(text: str, millionths: int) -> None:
    assert parse_fraction(text) == millionths


@given(st.integers(1, 1_000_000))
def test_a_fraction_survives_being_written(millionths: int) -> None:
    assert parse_fraction(format_fraction(millionths)) == millionths


@pytest.mark.parametrize(
    "text", ["0", "0.0", "1.5", "-1", "", ".", "x", "1e-1", "nan", "0.0000001", "1.0000001", "½"]
)
def test_what_is_no_fraction_of_a_gpu(text: str) -> None:
    with pytest.raises(UsageError, match="-p"):
        parse_fraction(text)


@pytest.mark.parametrize(
    ("text", "mib"), [("512", 512), ("512M", 512), ("4000MiB", 4000), ("2G", 2048), ("1gib", 1024)]
)
def test_memory(text: str, mib: int) -> None:
    assert parse_memory_bytes(text) == mib << 20


@pytest.mark.parametrize("text", ["0", "-5", "", "x", "1.5G", "5T", "9" * 30])
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(UsageError, match="-m"):
        parse_memory_bytes(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("0.5s", 0.5), ("5m", 300), ("1h30m", 5400), ("2d", 172800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-5", "5 minutes", "1m1h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        parse_duration_s(text)


def test_what_is_shown() -> None:
    assert format_mib((512 << 20) + 1) == "512 MiB"
    assert [format_duration(s) for s in (4, 192, 7500)] == ["4s", "3m12s", "2h05m"]
