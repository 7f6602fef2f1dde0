"""What a service needs to take its GPUs over is on disk before it is needed, and private.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from pathlib import Path

import pytest

from outboard.service.lease_file import LeaseFile, new_record, taking_over


def test_a_record_comes_back_as_it_was_written_and_nobody_else_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    record = taking_over(new_record(2, {"millionths": 500_000}))
    LeaseFile(str(path)).write(record)
    assert LeaseFile(str(path)).read() == record
    assert path.stat().st_mode & 0o777 == 0o600


def test_both_secrets_of_a_takeover_are_known(tmp_path: Path) -> None:
    record = new_record(1, {})
    assert record.holders == [record.holder]
    assert taking_over(record).holders[1] == record.holder
    assert len(set(taking_over(record).holders)) == 2


def test_no_file_is_no_record(tmp_path: Path) -> None:
    file = LeaseFile(str(tmp_path / "lease.json"))
    assert file.read() is None
    file.write(None)
    file.write(new_record(1, {}))
    file.write(None)
    assert file.read() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"request": "x"}', "null"])
def test_what_is_no_record_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lease.json"
    path.write_text(text, encoding="utf-8")
    assert LeaseFile(str(path)).read() is None
