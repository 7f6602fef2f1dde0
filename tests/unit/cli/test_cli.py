"""The commands around `run`.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from outboard import __version__
from outboard.cli import _COMMANDS
from tests.unit.conftest import Outboard

# Each costs more of the launcher's 60 ms than it is worth.
HEAVY = {"asyncio", "http.client", "subprocess", "logging", "dataclasses", "tomllib", "pathlib"}


@pytest.mark.parametrize("words", [[], ["--help"], ["run", "--help"], ["gpus", "-h"]])
def test_help_opens_with_examples(shared_outboard: Outboard, words: list[str]) -> None:
    done = shared_outboard(*words)
    assert done.returncode == 0
    assert done.stdout.startswith("Examples:\n  outboard ")


def test_version(shared_outboard: Outboard) -> None:
    assert shared_outboard("version").stdout == f"outboard {__version__}\n"
    assert json.loads(shared_outboard("version", "--json").stdout) == {"release": __version__}


def test_gpus_as_a_table_and_as_json(outboard: Outboard) -> None:
    done = outboard("gpus", SOFTGPU_FAKE_DEVICES="2")
    header, first, second = done.stdout.splitlines()
    assert header.split() == [
        *("SERVER", "GPU", "NAME", "FREE", "TOTAL", "SESSIONS", "CAPABILITY", "UUID")
    ]
    assert "Fake GPU  1028 MiB  1028 MiB" in first
    assert second.endswith("GPU-fake-1")
    devices = json.loads(outboard("gpus", "--json").stdout)["devices"]
    assert [device["index"] for device in devices] == [0, 1]
    assert devices[0]["free_bytes"] == devices[0]["capacity_bytes"] == 1028 << 20


def test_two_gpus_for_one_program(outboard: Outboard) -> None:
    done = outboard("run", "-n", "2", "-m", "100", *outboard.program, SOFTGPU_FAKE_DEVICES="3")
    claim = json.loads(done.stdout.removeprefix("OUTW"))["claim"]
    assert claim["devices"] == [
        {"index": index, "share_bytes": 100 << 20, "context_bytes": 4 << 20} for index in (0, 1)
    ]
    assert [line[:15] for line in done.stderr.splitlines()[1:]] == [
        "outboard: GPU 0",
        "outboard: GPU 1",
    ]


def test_sessions_tell_who_has_what(outboard: Outboard) -> None:
    assert outboard("sessions").stdout == "no sessions\n"
    launcher = outboard.start("run", "-m", "100", *outboard.program, "take 1048576", "wait")
    assert launcher.stdout is not None
    launcher.stdout.readline()
    assert launcher.stdout.readline() == "ok\n"
    listed = json.loads(outboard("sessions", "--json").stdout)["sessions"]
    assert [session["programs"] for session in listed] == [1]
    assert listed[0]["devices"][0]["held_bytes"] == (4 << 20) + (1 << 20)
    assert re.search(r"s-[0-9a-f]{8} .* 100 MiB +5 MiB +1 ", outboard("sessions").stdout)
    launcher.terminate()
    launcher.communicate()


def test_the_pool_is_shown_and_stopped(outboard: Outboard) -> None:
    assert "no pool runs" in outboard("pool", "status").stdout
    outboard("gpus")
    status = outboard("pool", "status")
    assert f"release {__version__}, pid " in status.stdout
    assert "pool.log" in status.stdout
    assert json.loads(outboard("pool", "status", "--json").stdout)["running"] is True
    assert outboard("pool", "stop").stdout == "stopped; 0 sessions were ended\n"
    assert not (outboard.runtime / "pool.sock").exists()


def test_a_pool_in_use_is_stopped_only_by_force(outboard: Outboard) -> None:
    launcher = outboard.start("run", *outboard.program, "wait")
    assert launcher.stdout is not None
    launcher.stdout.readline()
    refused = outboard("pool", "stop")
    assert refused.returncode == 125
    assert "the pool has 1 session" in refused.stderr
    assert "outboard pool stop --force" in refused.stderr
    assert outboard("pool", "stop", "--force").returncode == 0
    assert launcher.communicate()[0] == "ended: the pool was stopped\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rum"], "did you mean `outboard run`?"),
        (["--frob"], "there is no option --frob"),
        (["gpus", "extra"], "unrecognized arguments: extra"),
        (["pool"], "the following arguments are required: action"),
        (["pool", "restart"], "invalid choice"),
    ],
)
def test_unknown_words_are_refused(shared_outboard: Outboard, words: list[str], said: str) -> None:
    done = shared_outboard(*words)
    assert done.returncode == 125
    assert said in done.stderr
    assert all(line.startswith("outboard: ") for line in done.stderr.splitlines())


def test_the_launcher_imports_nothing_that_it_does_not_need(outboard: Outboard) -> None:
    outboard("gpus")
    script = (
        "import sys; before = set(sys.modules); from outboard.cli import main;"
        "main(['run', '-q', 'true']); print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env=outboard.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert HEAVY.isdisjoint(done.stdout.split()), done.stdout


def test_the_reference_names_every_command() -> None:
    text = (Path(__file__).parents[3] / "docs/reference/cli.md").read_text(encoding="utf-8")
    shown = [name for name in _COMMANDS if f"`outboard {name}" not in text]
    assert shown == []
