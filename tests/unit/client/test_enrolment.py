"""A machine knows whether the token that it finds is its own.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from pathlib import Path

import pytest

from outboard.client import enrolment
from outboard.errors import ConfigurationError
from outboard.model.token import parse_token

TOKEN = parse_token("ob_" + "0" * 16 + "_" + "1" * 64 + "_" + "2" * 16)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for /etc/outboard, on a machine whose mark is `one`."""
    monkeypatch.setattr(enrolment, "SYSTEM_CONFIGURATION_FILE", str(tmp_path / "config.toml"))
    monkeypatch.setattr(enrolment, "IMAGE_FILE", str(tmp_path / "join.toml"))
    monkeypatch.setattr(enrolment, "MACHINE_FILE", str(tmp_path / "machine"))
    monkeypatch.setattr(enrolment, "machine_mark", lambda: "one")
    return tmp_path


def enrolled(monkeypatch: pytest.MonkeyPatch, kind: str = "host") -> list[str]:
    """Names of machines that have joined from here on."""
    names: list[str] = []

    def enrol(_token: object, _url: str, name: str, _source: str) -> tuple[dict[str, object], str]:
        names.append(name)
        return {"kind": kind, "name": name, "token": f"token of {name}"}, "certificate\n"

    monkeypatch.setattr(enrolment, "enrol", enrol)
    return names


def test_a_machine_that_joined_is_no_copy_and_its_copy_is(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not enrolment.is_copy()
    enrolment.become_client("https://pool", {"token": "t"}, "certificate\n")
    assert not enrolment.is_copy()
    assert (machine / "config.toml").stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(enrolment, "machine_mark", lambda: "another")
    assert enrolment.is_copy()


def test_each_machine_made_from_an_image_joins_once(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = enrolled(monkeypatch)
    assert enrolment.join_as_image("no image") == ""
    enrolment.prepare_image(TOKEN, "https://pool:7860")
    assert (machine / "join.toml").stat().st_mode & 0o777 == 0o600
    assert enrolment.join_as_image("first") == "first"
    assert enrolment.join_as_image("first, again") == ""
    monkeypatch.setattr(enrolment, "machine_mark", lambda: "another")
    assert enrolment.join_as_image("second") == "second"
    assert 'token = "token of second"' in (machine / "config.toml").read_text()
    assert names == ["first", "second"]


def test_an_image_of_gpu_servers_is_refused(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enrolled(monkeypatch, "node")
    enrolment.prepare_image(TOKEN, "https://pool:7860")
    with pytest.raises(ConfigurationError, match="GPU servers"):
        enrolment.join_as_image("first")
    assert not (machine / "config.toml").exists()
