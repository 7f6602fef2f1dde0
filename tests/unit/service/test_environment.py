"""What shells gain is what `outboard run` sets: computed, sourced twice without harm, quiet.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from outboard.run.environment import session_environment
from outboard.service.environment import as_environment_d, as_fish, as_shell, gains
from outboard.service.folders import ServiceFolders

SHIM = "/usr/lib/outboard/lib/shim"
DEFAULT = ServiceFolders("default", system=True)
OTHER = ServiceFolders("team", system=True)


def source(
    shell: list[str], code: str, environment: dict[str, str], times: int = 1
) -> dict[str, str]:
    """The environment after sourcing; the shell must print nothing else."""
    script = code * times + "\nenv\n"
    done = subprocess.run(
        [*shell, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("name", ["sh", "bash", "zsh", "fish"])
@pytest.mark.parametrize("before", [None, "/opt/lib", "/opt/lib:/usr/local/lib"])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("software", [False, True])
def test_every_shell_gets_what_run_sets(
    tmp_path: Path, name: str, before: str | None, times: int, software: bool
) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    if before is not None:
        environment["LD_LIBRARY_PATH"] = before
    found = gains(OTHER, SHIM, software=software)
    code = as_fish(found) if name == "fish" else as_shell(found)
    got = source([name], code, environment, times)
    wanted = session_environment(environment, OTHER.session_file, SHIM, software=software)
    assert {key: got.get(key) for key in wanted} == wanted


@pytest.mark.parametrize("software", [False, True])
def test_what_run_sets_is_all_there_and_lists_are_told_from_values(software: bool) -> None:
    found = {gain.name: gain for gain in gains(OTHER, SHIM, software=software)}
    assert set(found) == set(session_environment({}, "", SHIM, software=software))
    assert ("CUPY_COMPILE_WITH_PTX" in found) == software
    assert [name for name, gain in found.items() if gain.prepends] == ["LD_LIBRARY_PATH"]


def test_the_default_session_is_not_named_so_that_a_users_own_wins() -> None:
    assert "OUTBOARD_SESSION" not in {gain.name for gain in gains(DEFAULT, SHIM, software=True)}


def test_nothing_ever_adds_the_current_folder_to_a_path() -> None:
    text = as_environment_d(gains(OTHER, SHIM, software=False))
    assert f"LD_LIBRARY_PATH={SHIM}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\n" in text
