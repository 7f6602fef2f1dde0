"""The share page has the layout that workers are told.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

import pytest

from outboard.agent.share_page import PAGE_BYTES, SLOTS, SharePage


def field(page: SharePage, at: int) -> int:
    return int(struct.unpack("<Q", os.pread(page.descriptor, 8, at))[0])


def test_the_head_and_the_limits_are_where_the_contract_says() -> None:
    page = SharePage.make([1 << 30, 2 << 30])
    assert os.fstat(page.descriptor).st_size == PAGE_BYTES == 320 * 1024
    assert field(page, 0) == 0x3147504853424F4F
    assert [field(page, at) for at in (8, 16, 64, 72)] == [2, 256, 1 << 30, 2 << 30]
    page.close()


def test_what_a_worker_holds_is_gone_with_its_slot() -> None:
    page = SharePage.make([100, 100])
    first, second = page.take_slot(), page.take_slot()
    assert (first, second) == (0, 1)
    os.pwrite(page.descriptor, struct.pack("<QQ", 30, 5), 256)
    os.pwrite(page.descriptor, struct.pack("<QQ", 60, 6), 256 + 8 * 16)
    assert page.held_bytes() == [90, 11]
    page.return_slot(0)
    assert page.held_bytes() == [60, 6]
    assert field(page, 256) == 0
    assert page.take_slot() == 0
    page.close()


def test_what_a_program_did_is_gone_with_its_slot() -> None:
    page = SharePage.make([100])
    slots = [page.take_slot(), page.take_slot()]
    for slot in (0, 1):
        os.pwrite(page.descriptor, struct.pack("<4Q", 1, 2, 30 + slot, 4), 65536 + 1024 * slot)
    uses = [page.use(slot) for slot in slots if slot is not None]
    assert [use and use.pid for use in uses] == [30, 31]
    page.return_slot(0)
    assert page.use(0) is None
    assert page.use(1) is not None
    page.close()


def test_a_page_of_an_older_release_grows(tmp_path: Path) -> None:
    path = str(tmp_path / "page")
    made = SharePage.make([100], path)
    os.pwrite(made.descriptor, struct.pack("<Q", 30), 256)
    os.ftruncate(made.descriptor, 65536)
    made.close()
    page = SharePage.open(path, 1, {0})
    assert (page.held_bytes(), page.use(0)) == ([30], None)
    assert os.fstat(page.descriptor).st_size == PAGE_BYTES
    page.close()


def test_slots_run_out() -> None:
    page = SharePage.make([1])
    assert [page.take_slot() for _ in range(SLOTS)] == list(range(SLOTS))
    assert page.take_slot() is None
    page.close()


def test_a_worker_cannot_shrink_the_page() -> None:
    page = SharePage.make([1])
    with pytest.raises(PermissionError):
        os.ftruncate(page.descriptor, 0)
    with pytest.raises(PermissionError):
        fcntl.fcntl(page.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    page.close()


@pytest.mark.parametrize("count", [0, 17])
def test_the_number_of_devices_is_bounded(count: int) -> None:
    with pytest.raises(ValueError, match="devices"):
        SharePage.make([1] * count)
