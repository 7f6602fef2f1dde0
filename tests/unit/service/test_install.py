"""An installation says what it writes, leaves what is others', and takes all of its own away.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from pathlib import Path

import pytest

from outboard.cli.parser import Parser
from outboard.cli.service_install import install
from outboard.cli.service_options import add_place, add_request, options_of, request_of
from outboard.errors import ServiceError
from outboard.native import NativeFiles
from outboard.service.folders import ServiceFolders
from outboard.service.install import plan, remove, write
from outboard.service.loader import paths_in
from outboard.service.options import ServiceOptions
from outboard.service.unit_text import load_template, operators_rule, request_words
from tests.unit.conftest import make_native

NATIVE = NativeFiles("/usr/lib/outboard")
COMMAND = "/usr/bin/outboard"


def parse(*words: str) -> tuple[ServiceOptions, list[str]]:
    parser = Parser("service", "", "")
    add_place(parser)
    add_request(parser)
    options = parser.parse_args(words)
    return options_of(options), request_of(options)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def test_where_systemd_does_not_run_nothing_is_written(
    home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other")
    make_native(other / "native")
    for name in ("systemctl", "outboard"):
        path = other / name
        path.write_text("#!/bin/sh\necho 'System has not been booted with systemd' >&2\nexit 1\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(other))
    monkeypatch.setenv("OUTBOARD_NATIVE_DIR", str(other / "native"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(other))
    with pytest.raises(ServiceError, match="has not been booted with systemd") as refused:
        install(["--user", "-n", "1"])
    assert "outboard service run" in refused.value.hint
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["-n", "1"],
        ["-n", "2", "-p", "0.314"],
        ["-n", "1", "-m", "4000", "--idle", "30m"],
        ["-n", "1", "--group", "ml", "--ready-timeout", "2s"],
    ],
)
def test_the_unit_shows_the_request_as_it_was_typed(words: list[str]) -> None:
    options, shown = parse(*words)
    assert shown == words
    assert parse(*shown)[0] == options


def test_the_request_is_read_back_from_what_systemd_shows() -> None:
    shown = (
        "{ path=/usr/bin/outboard ; argv[]=/usr/bin/outboard service run --system --name default"
        " -n 1 -p 0.5 ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 }"
    )
    words = ["--system", "--name", "default", "-n", "1", "-p", "0.5"]
    assert request_words(shown) == words
    assert request_words("") == []


def test_a_user_installs_and_uninstalls_in_his_own_home(home: Path) -> None:
    folders = ServiceFolders("default", system=False)
    (home / ".bashrc").write_text('# mine\n[ -z "$PS1" ] && return\n', encoding="utf-8")
    before = {path: path.read_text() for path in home.rglob("*") if path.is_file()}
    options, words = parse("-p", "0.5")
    made = plan(folders, options, words, NATIVE, COMMAND)
    write(made)
    assert sorted(made.paths) == sorted(str(path) for path in home.rglob("*") if path.is_file())
    bashrc = (home / ".bashrc").read_text()
    # In front of the test for interactive shells: `ssh host command` reads no further.
    assert bashrc.index("LD_LIBRARY_PATH") < bashrc.index("PS1")
    write(made)
    assert (home / ".bashrc").read_text() == bashrc
    remove(folders)
    after = {path: path.read_text() for path in home.rglob("*") if path.is_file()}
    assert {path: text for path, text in after.items() if text} == before


def test_a_link_to_a_bashrc_stays_a_link(home: Path) -> None:
    (home / "dotfiles").mkdir()
    (home / "dotfiles/bashrc").write_text("# mine\n", encoding="utf-8")
    (home / ".bashrc").symlink_to("dotfiles/bashrc")
    options, words = parse()
    write(plan(ServiceFolders("default", system=False), options, words, NATIVE, COMMAND))
    assert (home / ".bashrc").is_symlink()
    assert "outboard" in (home / "dotfiles/bashrc").read_text()


def test_the_machines_service_is_installed_as_a_driver_is() -> None:
    folders = ServiceFolders("default", system=True)
    options, words = parse("--group", "ml")
    made = plan(folders, options, words, NATIVE, COMMAND, "ml-admins")
    assert made.files["/etc/ld.so.conf.d/outboard.conf"].endswith("\n/usr/lib/outboard/lib/shim\n")
    socket = made.files["/etc/systemd/system/outboard@default.socket.d/10-access.conf"]
    assert "SocketGroup=ml\nSocketMode=0660" in socket
    assert "/etc/polkit-1/rules.d/60-outboard-default.rules" in made.files


def test_who_may_use_and_stop_it_is_what_was_said_last() -> None:
    folders = ServiceFolders("default", system=True)
    restricted = plan(folders, *parse("--for-user", "ada"), NATIVE, COMMAND, "ml-admins")
    assert restricted.unwanted == []
    for_all = plan(folders, *parse(), NATIVE, COMMAND)
    assert set(for_all.unwanted) == set(restricted.paths) - set(for_all.paths)


def test_another_service_of_the_machine_is_in_nobodys_way() -> None:
    options, words = parse()
    made = plan(ServiceFolders("team", system=True), options, words, NATIVE, COMMAND)
    assert all(path.startswith("/etc/systemd/system/outboard") for path in made.paths)


@pytest.mark.parametrize("system", [True, False])
def test_units_name_the_command_that_is_installed(system: bool) -> None:
    text = load_template(system, "outboard@.service", COMMAND)
    assert "@OUTBOARD@" not in text
    assert f"ExecStart={COMMAND} service run" in text


def test_a_groups_name_cannot_break_out_of_the_rule() -> None:
    assert '"a\\"b"' in operators_rule('a"b', "default")


def test_the_loaders_cache_is_read() -> None:
    listing = (
        "549 libs found in cache `/etc/ld.so.cache'\n"
        "\tlibcudart.so.13 (libc6,x86-64) => /usr/local/cuda/lib/libcudart.so.13\n"
        "\tlibcuda.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libcuda.so.1\n"
    )
    assert paths_in(listing, "libcuda.so.1") == ["/lib/x86_64-linux-gnu/libcuda.so.1"]
