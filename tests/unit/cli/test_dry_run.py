"""`--dry-run`: what would become of a request, without one.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import re

import pytest

from tests.unit.conftest import Outboard


@pytest.mark.parametrize("command", ["run", "request"])
def test_a_dry_run_says_where_and_takes_nothing(outboard: Outboard, command: str) -> None:
    done = outboard(command, "-m", "100", "--dry-run")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "it would start now:"
    assert second.startswith("  GPU 0: Fake GPU, 100 MiB, on ")
    assert outboard("sessions").stdout == "no sessions\n"
    told = json.loads(outboard(command, "-m", "100", "--dry-run", "--json").stdout)
    assert (told["fits"], told["devices"][0]["share_bytes"]) == (True, 100 << 20)


def test_a_dry_run_that_would_wait_says_for_what(outboard: Outboard) -> None:
    outboard("request", "-m", "600")
    done = outboard("run", "-m", "500", "--dry-run", "--", "true")
    assert done.returncode == 124
    assert done.stdout.splitlines()[0].startswith("it would wait, number 1 in the queue: at most")
    assert re.search(r"GPU 0: \d+ MiB are free, 500 MiB are asked for", done.stdout)
    outboard("release")


def test_a_dry_run_of_what_can_never_be_is_refused(outboard: Outboard) -> None:
    done = outboard("run", "-n", "9", "--dry-run")
    assert (done.returncode, done.stdout) == (125, "")
    assert "-n 9: this pool has 1 GPU" in done.stderr


def test_a_dry_run_in_a_session_says_that_it_would_be_used(outboard: Outboard) -> None:
    session = outboard("request", "-m", "100").stdout.strip()
    done = outboard("exec", "--", *outboard.command("run", "--dry-run", "true"))
    assert (done.returncode, session in done.stdout) == (0, True), done.stderr
    done = outboard("exec", "--", *outboard.command("run", "-m", "1", "--dry-run", "true"))
    assert (done.returncode, "cannot hold a CUDA context" in done.stderr) == (125, True)
    outboard("release")


def test_json_is_for_dry_runs_alone(outboard: Outboard) -> None:
    done = outboard("run", "--json", "true")
    assert (done.returncode, "--json is for --dry-run" in done.stderr) == (125, True)
