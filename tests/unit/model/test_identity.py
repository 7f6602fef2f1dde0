"""A machine is told from its copies, also from those that say they are the same.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from outboard.errors import ConfigurationError
from outboard.model.identity import machine_mark


def mark(folder: Path, machine_id: str, hardware: str | None) -> str:
    (folder / "machine-id").write_text(machine_id, encoding="ascii")
    uuid = folder / "product_uuid"
    uuid.unlink(missing_ok=True)
    if hardware is not None:
        uuid.write_text(f"{hardware}\n", encoding="ascii")
    return machine_mark(str(folder / "machine-id"), str(uuid), (str(folder / "container"),))


def test_copies_differ_in_their_machine_id_or_in_their_hardware(tmp_path: Path) -> None:
    original = mark(tmp_path, "0123\n", "4c4c4544")
    assert mark(tmp_path, "0123\n", "4c4c4544") == original
    others = [
        mark(tmp_path, "4567\n", "4c4c4544"),
        mark(tmp_path, "0123\n", "d00f00d5"),
        mark(tmp_path, "0123\n", None),
    ]
    assert len({original, *others}) == 4
    assert "0123" not in original


def test_containers_are_told_by_their_names_wherever_they_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named(name: str, hardware: str) -> str:
        uname = os.uname_result(("Linux", name, "6", "1", "x86_64"))
        monkeypatch.setattr(os, "uname", lambda: uname)
        return mark(tmp_path, "0123\n", hardware)

    assert named("one", "4c4c4544") == named("two", "4c4c4544")  # a machine may be renamed
    (tmp_path / "container").touch()
    assert named("one", "4c4c4544") != named("two", "4c4c4544")
    assert named("one", "4c4c4544") == named("one", "d00f00d5")


def test_a_machine_without_an_identity_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        mark(tmp_path, "", None)
    assert "systemd-machine-id-setup" in caught.value.hint
