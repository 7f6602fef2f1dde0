"""Writing settings: what was there stays, secrets are for their owner alone.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from outboard.errors import ConfigurationError
from outboard.settings_file import write_settings


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "outboard/config.toml"
    write_settings(str(path), {"pool": "https://a:1", "token": 'quo"te\\'})
    assert tomllib.loads(path.read_text()) == {"pool": "https://a:1", "token": 'quo"te\\'}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('# mine\npool = "old"  # this one\n\n[embedded]\nidle = "1m"\npool = "no"\n')
    path.chmod(0o644)
    write_settings(str(path), {"pool": "new", "token": "t"})
    text = path.read_text()
    assert tomllib.loads(text) == {
        "pool": "new",
        "token": "t",
        "embedded": {"idle": "1m", "pool": "no"},
    }
    assert "# mine" in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_not_toml_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("not = = toml")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        write_settings(str(path), {"pool": "new"})
    assert path.read_text() == "not = = toml"


def test_what_cannot_be_shown_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        write_settings(str(tmp_path / "config.toml"), {"pool": "a\nb"})
