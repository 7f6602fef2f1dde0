"""Manual pages and completions have every command and option, and what reads them accepts them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.conftest import SOURCES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    subprocess.run(
        [sys.executable, ROOT / "tools/command_pages.py", folder],
        env={"PYTHONPATH": str(SOURCES), "PATH": "/usr/bin:/bin"},
        check=True,
        timeout=60,
    )
    return folder


def needs(command: str) -> str:
    found = shutil.which(command)
    if found is None:
        pytest.skip(f"{command} is not installed")
    return found


def completed(pages: Path, line: str) -> set[str]:
    """What fish offers for a line."""
    script = f"source {pages}/completion/outboard.fish; complete -C {line!r}"
    done = subprocess.run(
        [needs("fish"), "--no-config", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    return {offered.split("\t")[0] for offered in done.stdout.splitlines()}


def test_every_command_has_a_manual_page(pages: Path) -> None:
    from outboard.cli import _COMMANDS

    written = {page.stem for page in (pages / "man").iterdir()} | {"outboard-service"}
    assert {f"outboard-{name}" for name in _COMMANDS} <= written
    assert "outboard-service-install" in written
    assert "outboard-service-publish" not in written
    text = (pages / "man/outboard-service-install.1").read_text()
    assert "\\fB\\-\\-for\\-user\\fR \\fIUSER\\fR\nfor this user alone" in text


def test_manual_pages_are_what_man_reads(pages: Path) -> None:
    for page in sorted((pages / "man").iterdir()):
        done = subprocess.run(
            [needs("groff"), "-man", "-ww", "-Tutf8", page],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stderr == "", page
        # Bold is a letter, a backspace and the letter again.
        shown = re.sub(".\b", "", done.stdout)
        assert "SEE ALSO" in shown and "show this help message" in shown, page


def test_fish_completes_commands_actions_options_and_choices(pages: Path) -> None:
    assert completed(pages, "outboard ho") == {"hosts"}
    assert {"install", "uninstall", "env"} <= completed(pages, "outboard service ")
    assert completed(pages, "outboard service install --for") == {"--for-user"}
    assert "--policy" in completed(pages, "outboard hosts set --pol")
    assert completed(pages, "outboard hosts set x --policy ser") == {"service-only"}
    assert "--for-user" not in completed(pages, "outboard gpus --")


def test_zsh_takes_the_completion(pages: Path) -> None:
    path = pages / "completion/_outboard"
    script = f"autoload -U compinit && compinit -u -D && fpath=({path.parent} $fpath)"
    script += " && autoload -Uz _outboard && autoload +X _outboard && print loaded"
    done = subprocess.run(
        [needs("zsh"), "-f", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("loaded\n", "")
    assert "--for-user'[for this user alone]:USER: '" in path.read_text()
