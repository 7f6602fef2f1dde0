"""Settings: the order of the layers, and files that cannot be used.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from pathlib import Path

import pytest

from outboard import settings as module
from outboard.errors import ConfigurationError
from outboard.settings import load_settings


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No setting but what a test makes; returns the folder of user.toml and system.toml."""
    for variable in module._VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "outboard").mkdir()
    monkeypatch.setattr(module, "SYSTEM_CONFIGURATION_FILE", str(tmp_path / "system.toml"))
    return tmp_path


def test_defaults() -> None:
    settings = load_settings()
    assert settings.find("pool") is None
    assert (settings.driver, settings.idle_s, settings.warm_workers) == ("auto", 600.0, 1)


def test_flag_over_environment_over_user_over_system(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files / "system.toml").write_text('pool = "unix:/s"\n[embedded]\nidle = "1m"\n')
    assert load_settings().find("pool") == ("unix:/s", str(files / "system.toml"))
    (files / "outboard/config.toml").write_text('pool = "unix:/u"\n[embedded]\nwarm_workers = 3\n')
    assert load_settings().find("pool") == ("unix:/u", str(files / "outboard/config.toml"))
    monkeypatch.setenv("OUTBOARD_POOL", "unix:/e")
    assert load_settings().find("pool") == ("unix:/e", "OUTBOARD_POOL")
    assert load_settings({"pool": "unix:/f"}).find("pool") == ("unix:/f", "command line")
    assert (load_settings().idle_s, load_settings().warm_workers) == (60.0, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [("pool =", "cannot be used"), ("pol = 1", "unknown setting pol"), ("\xff", "cannot be used")],
)
def test_a_file_that_cannot_be_used_is_an_error(files: Path, text: str, said: str) -> None:
    (files / "system.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=said):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("OUTBOARD_POOL_IDLE", "soon", "idle_s"),
        ("OUTBOARD_WARM_WORKERS", "-1", "warm_workers"),
        ("OUTBOARD_DRIVER", "libcuda.so", "driver"),
    ],
)
def test_a_value_that_cannot_be_used_names_where_it_comes_from(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        getattr(load_settings(), name)
