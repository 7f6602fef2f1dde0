"""Bad input gets a clear error with the next step, the right exit code, and loses nothing.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.integration.harness import Native, Outcome, Pool

REFUSED = {
    "an unknown option": ["run", "--frobnicate", "--", "true"],
    "an unknown subcommand": ["frobnicate"],
    "no command": ["run", "-n", "1"],
    "zero GPUs": ["run", "-n", "0", "--", "true"],
    "a negative number of GPUs": ["run", "-n", "-1", "--", "true"],
    "GPUs that are no number": ["run", "-n", "two", "--", "true"],
    "more GPUs than there are": ["run", "-n", "99", "--", "true"],
    "a fraction of nothing": ["run", "-n", "1", "-p", "0", "--", "true"],
    "a fraction above one": ["run", "-n", "1", "-p", "1.5", "--", "true"],
    "a fraction that is no number": ["run", "-n", "1", "-p", "half", "--", "true"],
    "a fraction that is not a number": ["run", "-n", "1", "-p", "nan", "--", "true"],
    "fraction and size together": ["run", "-n", "1", "-p", "0.5", "-m", "512", "--", "true"],
    "no memory": ["run", "-n", "1", "-m", "0", "--", "true"],
    "more memory than any device has": ["run", "-n", "1", "-m", "99999999", "--", "true"],
    "a share that cannot hold a context": ["run", "-n", "1", "-m", "1", "--", "true"],
}


def assert_refused(outcome: Outcome, exit_code: int) -> None:
    assert outcome.returncode == exit_code, outcome.describe()
    assert outcome.stdout == ""
    assert outcome.stderr.startswith("outboard: "), outcome.describe()
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("words", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_meant_is_refused_with_125(pool: Pool, words: list[str]) -> None:
    assert_refused(pool.call(*words), 125)
    assert pool.json("sessions")["sessions"] == []


def test_more_gpus_than_there_are_says_how_many_there_are(pool: Pool) -> None:
    count = len(pool.json("gpus")["devices"])
    outcome = pool.call("run", "-n", str(count + 1), "--", "true")
    assert_refused(outcome, 125)
    assert str(count) in outcome.stderr


def test_a_command_that_does_not_exist_is_127(pool: Pool) -> None:
    outcome = pool.run("/nowhere/to/be/found")
    assert_refused(outcome, 127)
    assert "/nowhere/to/be/found" in outcome.stderr
    assert_refused(pool.run("no-such-command-anywhere"), 127)


def test_a_command_that_cannot_run_is_126(pool: Pool, tmp_path: Path) -> None:
    script = tmp_path / "data.txt"
    script.write_text("not a program\n")
    script.chmod(0o644)
    assert_refused(pool.run(script), 126)
    assert_refused(pool.run(tmp_path), 126)


def joined(pool: Pool, path: Path) -> Outcome:
    """`outboard run` inside of a session that this file describes."""
    return pool.run("true", options=[], extra={"OUTBOARD_SESSION": str(path)})


MALFORMED = {
    "empty": b"",
    "no JSON": b"sessions are fun",
    "no object": b"[1, 2, 3]",
    "another version": json.dumps({"version": 99, "session": "s-1", "form": "inline"}).encode(),
    "no form": json.dumps({"version": 1, "session": "s-1"}).encode(),
    "nothing but nulls": b"\0" * 64,
    "too large": b'{"version": 1, "session": "' + b"x" * (1 << 17) + b'"}',
    "deeply nested": b"[" * 5000,
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_session_file_is_named(pool: Pool, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "session.json"
    path.write_bytes(content)
    path.chmod(0o600)
    outcome = joined(pool, path)
    assert_refused(outcome, 125)
    assert str(path) in outcome.stderr


def test_a_session_file_that_is_not_there_is_named(pool: Pool, tmp_path: Path) -> None:
    outcome = joined(pool, tmp_path / "absent.json")
    assert_refused(outcome, 125)
    assert "absent.json" in outcome.stderr


def test_a_session_file_that_is_a_folder_is_refused(pool: Pool, tmp_path: Path) -> None:
    assert_refused(joined(pool, tmp_path), 125)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_session_file_of_another_user_is_refused(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    path.write_text("{}")
    path.chmod(0o600)
    os.chown(path, 65534, 65534)
    assert_refused(joined(pool, path), 125)


@pytest.mark.parametrize("mode", [0o666, 0o620], ids=["by all", "by the group"])
def test_a_session_file_that_others_may_write_is_refused(
    pool: Pool, tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "session.json"
    path.write_text("{}")
    path.chmod(mode)
    assert_refused(joined(pool, path), 125)


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED.keys())
def test_the_shim_survives_a_malformed_session_file(
    native: Native, pool: Pool, tmp_path: Path, content: bytes
) -> None:
    from tests.integration.harness import clean_environment, run_program

    path = tmp_path / "session.json"
    path.write_bytes(content)
    path.chmod(0o600)
    environment = clean_environment(tmp_path) | {
        "LD_LIBRARY_PATH": str(native.shim),
        "OUTBOARD_SESSION": str(path),
    }
    outcome = run_program([native.program("vectorAddDriver", "driver")], environment)
    assert outcome.returncode == 1, outcome.describe()
    assert "CUDA_ERROR_NO_DEVICE" in outcome.stderr
    assert str(path) in outcome.stderr


def test_options_after_the_command_belong_to_it(pool: Pool) -> None:
    outcome = pool.call("run", "-n", "1", "echo", "-n", "5", "--", "-p", "2")
    assert outcome.returncode == 0, outcome.describe()
    assert outcome.stdout == "5 -- -p 2"
