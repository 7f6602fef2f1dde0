"""`outboard controller init`: made once, for its owner alone, and read back.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from outboard.controller.installation import read_installation
from outboard.errors import ConfigurationError
from outboard.ledger.database import Database
from outboard.ledger.tokens import check_token
from outboard.model.token import parse_token
from tests.unit.conftest import HANG_GUARD_S, SOURCES


def init(folder: Path) -> subprocess.CompletedProcess[str]:
    words = ["controller", "init", "--state", str(folder), "--name", "gpus.example.org"]
    return subprocess.run(
        [sys.executable, "-m", "outboard", *words],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCES), "HOME": str(folder.parent)},
        capture_output=True,
        text=True,
        timeout=HANG_GUARD_S,
        check=False,
    )


def test_it_makes_a_pool_and_prints_its_first_token_once(tmp_path: Path) -> None:
    done = init(tmp_path / "ctl")
    assert done.returncode == 0, done.stderr
    token = parse_token(done.stdout)
    installation = read_installation(str(tmp_path / "ctl"))
    assert token.authority == installation.authority.mark
    assert installation.configuration.addresses == ("https://gpus.example.org:7860",)
    database = Database(installation.configuration.database)
    held = database.read(lambda tx: check_token(tx, str(token)))
    database.close()
    assert (held.subject, "admin" in held.scopes) == ("admin", True)
    for path in (tmp_path / "ctl").iterdir():
        assert token.secret.encode() not in path.read_bytes()
        if path.suffix in (".key", ".sqlite"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_it_never_makes_over_what_is_there(tmp_path: Path) -> None:
    assert init(tmp_path / "ctl").returncode == 0
    mark = read_installation(str(tmp_path / "ctl")).authority.mark
    again = init(tmp_path / "ctl")
    assert (again.returncode, "is a controller already" in again.stderr) == (125, True)
    assert read_installation(str(tmp_path / "ctl")).authority.mark == mark


@pytest.mark.parametrize("name", ["signing.key", "pool.key", "controller.json", "authority.key"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    init(tmp_path / "ctl")
    (tmp_path / "ctl" / name).unlink()
    with pytest.raises(ConfigurationError, match=name):
        read_installation(str(tmp_path / "ctl"))


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    init(tmp_path / "ctl")
    (tmp_path / "ctl/signing.key").chmod(0o644)
    with pytest.raises(ConfigurationError, match="can be read by others"):
        read_installation(str(tmp_path / "ctl"))
