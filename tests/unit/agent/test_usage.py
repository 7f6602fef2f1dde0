"""What a worker counted is read as it means it, and bounded where it lies.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import struct

from outboard.agent.usage import USAGE_BYTES, DeviceUse, EndedUses, Use, read_use

MOST = (1 << 64) - 1


def record(
    head: tuple[int, int, int, int],
    rows: dict[str, dict[int, int]] | None = None,
    program: bytes = b"matrixMul",
) -> bytes:
    """A slot's record as docs/internals/session.md §5 lays it out."""
    fields = [0] * (USAGE_BYTES // 8)
    fields[:4] = head
    for name, at in (("calls", 8), ("busy", 24), ("since", 40), ("peak", 56)):
        for device, value in (rows or {}).get(name, {}).items():
            fields[at + device] = value
    data = struct.pack(f"<{len(fields)}Q", *fields)
    return data[: 8 * 72] + program.ljust(64, b"\0")[:64] + data[8 * 80 :]


def test_a_record_is_read_where_the_contract_says() -> None:
    rows = {"calls": {0: 7, 1: 8}, "busy": {1: 500}, "peak": {0: 4096, 15: 99}}
    use = read_use(record((1_700_000_000_000_000, 900, 4711, 1000), rows), 2, now_us=1000)
    assert use == Use(
        pid=4711,
        uid=1000,
        program="matrixMul",
        started_us=1_700_000_000_000_000,
        last_call_us=900,
        devices=(DeviceUse(7, 0, 4096), DeviceUse(8, 500, 0)),
    )


def test_work_that_goes_on_counts_until_now_and_is_a_use() -> None:
    rows = {"busy": {0: 500}, "since": {0: 700}}
    use = read_use(record((1, 650, 1, 1), rows), 1, now_us=1000)
    assert use is not None
    assert (use.devices[0].busy_us, use.last_call_us) == (800, 1000)


def test_a_slot_without_a_program_has_no_use() -> None:
    assert read_use(b"", 1, 1000) is None
    assert read_use(record((0, 5, 5, 5)), 1, 1000) is None


def test_a_program_that_never_called_has_no_last_call() -> None:
    use = read_use(record((1, 0, 1, 1)), 1, 1000)
    assert use is not None
    assert use.last_call_us is None


def test_whatever_a_worker_writes_fits_the_ledger() -> None:
    rows = {name: dict.fromkeys(range(16), MOST) for name in ("calls", "busy", "since", "peak")}
    use = read_use(record((MOST, MOST, MOST, MOST), rows, b"\x1b[2J\xff" * 12 + b"x" * 4), 16, 1000)
    assert use is not None
    assert use.last_call_us == 1000
    assert (use.pid, use.uid) == (0xFFFFFFFF, 0xFFFFFFFF)
    assert all(max(one.calls, one.busy_us, one.peak_bytes) < 1 << 62 for one in use.devices)
    assert use.program.isprintable()
    assert len(use.program) <= 64
    assert use.ended(5).ended_us == use.started_us


def test_the_last_word_on_a_program_is_kept_until_it_was_reported() -> None:
    ended = EndedUses()
    ended.add("a", {"worker": "a"})
    ended.add("b", {"worker": "b"})
    first = ended.first(1)
    assert list(first) == ["a"]
    ended.add("c", {"worker": "c"})
    ended.drop(first)
    assert list(ended.first(10)) == ["b", "c"]
