"""The command line of `outboard run`.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import pytest

from outboard.cli.run import parse_run
from outboard.errors import UsageError


@pytest.mark.parametrize(
    ("words", "gpus", "share", "command"),
    [
        (["x"], None, None, ["x"]),
        (["-n", "2", "x", "-n", "3"], 2, None, ["x", "-n", "3"]),
        (["-n2", "-p.5", "--", "-x"], 2, {"millionths": 500_000}, ["-x"]),
        (["--gpus=1", "--memory=1G", "x", "--", "y"], 1, {"bytes": 1 << 30}, ["x", "--", "y"]),
        (["-m", "4000", "--", "--", "y"], None, {"bytes": 4000 << 20}, ["--", "y"]),
        (["-q", "python train.py"], None, None, ["python train.py"]),
    ],
)
def test_options_end_where_the_command_begins(
    words: list[str], gpus: int | None, share: dict[str, object] | None, command: list[str]
) -> None:
    options = parse_run(words)
    assert (options.gpus, options.share, options.words) == (gpus, share, command)
    assert options.asks == (gpus is not None or share is not None)


@pytest.mark.parametrize(
    ("words", "wait_s"), [([], None), (["--no-wait"], 0.0), (["--wait", "5m"], 300.0)]
)
def test_waiting(words: list[str], wait_s: float | None) -> None:
    assert parse_run([*words, "x"]).wait_s == wait_s


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--"],
        ["-n"],
        ["-n", "1"],
        ["-n", "-1", "x"],
        ["-n", "1.5", "x"],
        ["--wai", "5", "x"],
        ["-z", "x"],
        ["-q", "--gpu", "1", "x"],
    ],
)
def test_what_cannot_be_meant(words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_run(words)
    assert caught.value.hint
