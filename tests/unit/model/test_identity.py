"""A machine is told from its copies, also from those that say they are the same.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

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
    return machine_mark(str(folder / "machine-id"), str(uuid))


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


def test_a_machine_without_an_identity_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        mark(tmp_path, "", None)
    assert "systemd-machine-id-setup" in caught.value.hint
