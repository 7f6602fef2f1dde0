"""The predecessor's command lines, as they were written in the field.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json

import pytest

from outboard.cli.run import parse_run
from outboard.errors import UsageError
from tests.unit.conftest import Outboard


def test_a_session_by_the_names_of_before(outboard: Outboard) -> None:
    assert outboard("request_gpus", "-n", "1", "-p", "0.314").returncode == 0
    for words in (["client", "--", *outboard.program], ["client", *outboard.program]):
        done = outboard(*words, "ping")
        assert (done.returncode, "pong" in done.stdout) == (0, True), done.stderr
    listed = json.loads(outboard("list_gpus", "--json").stdout)["devices"]
    assert [len(device["sessions"]) for device in listed] == [1]
    assert "is released" in outboard("release_gpus").stdout


def test_a_session_is_released_by_its_file(outboard: Outboard) -> None:
    made = json.loads(outboard("request_gpus", "-m", "100", "--json").stdout)
    assert outboard("release_gpus", "-f", "allocation.yaml").returncode == 125
    assert made["session"] in outboard("release_gpus", "-f", made["file"]).stdout


@pytest.mark.parametrize("name", ["health", "localhealth"])
def test_health_is_the_doctor(shared_outboard: Outboard, name: str) -> None:
    assert json.loads(shared_outboard(name, "--json").stdout)["roles"] == ["client"]


def test_names_of_before_are_not_advertised(shared_outboard: Outboard) -> None:
    text = shared_outboard("--help").stdout + shared_outboard("run", "--help").stdout
    assert not any(name in text for name in ("request_gpus", "list_gpus", "server_list"))


def test_one_server_of_a_list_becomes_a_filter() -> None:
    for words in (["-l", "10.0.0.5:56001"], ["--server_list", "10.0.0.5"]):
        options = parse_run(["-n", "1", *words, "true"])
        assert options.wishes["filters"] == [
            {"key": "server.addr", "operator": "=", "value": "10.0.0.5"}
        ]
    with pytest.raises(UsageError, match="one server may be named"):
        parse_run(["-l", "10.0.0.5:56001;10.0.0.6:56001", "true"])
    options = parse_run(["--filter", "device.phy-memory>=16G", "true"])
    assert options.wishes["filters"] == [{"key": "device.memory", "operator": ">=", "value": "16G"}]
