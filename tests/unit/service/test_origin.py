"""`service env --diff`: what a shell has, what it lacks, and which file would have set it.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from pathlib import Path

from outboard.service.environment import as_shell, gains
from outboard.service.folders import ServiceFolders
from outboard.service.install import hooks
from outboard.service.origin import Origin, origins

SHIM = "/usr/lib/outboard/lib/shim"
FOUND = gains(ServiceFolders("default", system=True), SHIM, software=False)


def by_name(environment: dict[str, str], files: dict[str, str]) -> dict[str, Origin]:
    return {origin.name: origin for origin in origins(FOUND, environment, files)}


def test_a_bare_environment_has_nothing_and_the_file_that_sets_it_is_named(tmp_path: Path) -> None:
    profile, other = tmp_path / "outboard.sh", tmp_path / "fish"
    profile.write_text(as_shell(FOUND), encoding="utf-8")
    files = {str(profile): "login shells", str(other): "fish"}
    for origin in by_name({}, files).values():
        assert not origin.here
        assert origin.files == {str(profile): "login shells"}


def test_a_part_of_a_list_counts_and_another_value_does_not() -> None:
    found = by_name({"LD_LIBRARY_PATH": f"/opt/lib:{SHIM}", "TRITON_LIBCUDA_PATH": "/opt"}, {})
    assert found["LD_LIBRARY_PATH"].here
    assert not found["TRITON_LIBCUDA_PATH"].here
    assert found["TRITON_LIBCUDA_PATH"].record()["now"] == "/opt"


def test_a_session_that_a_shell_has_of_its_own_is_shown() -> None:
    assert "OUTBOARD_SESSION" not in by_name({}, {})
    own = by_name({"OUTBOARD_SESSION": "/tmp/session.json"}, {})["OUTBOARD_SESSION"]
    assert (own.here, own.now) == (False, "/tmp/session.json")


def test_hooks_are_what_an_installation_writes_for_shells() -> None:
    system = hooks(ServiceFolders("default", system=True))
    assert {"/etc/profile.d/outboard.sh", "/etc/environment.d/60-outboard.conf"} < set(system)
    assert hooks(ServiceFolders("team", system=True)) == {}
