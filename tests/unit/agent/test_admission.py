"""Fencing: an agent honours what its pool signed for it, now, for the present holder, and no more.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from outboard.agent.admission import Admission
from outboard.agent.epochs import Epochs
from outboard.agent.preface import HEAD, Preface, parse_preface
from outboard.errors import Refusal
from outboard.model.grant import Grant, data_plane_key, seal
from outboard.model.request import GrantedDevice
from outboard.pki.signing import KnownKeys, SigningKey
from tests.unit.fakes import program

NOW = 1_900_000_000.0
NODE_KEY = b"n" * 32
CONTROLLER = SigningKey(bytes(range(32)))
GRANT = Grant("s-1", "a-1", 3, "gpu1", (GrantedDevice("gpu1", 0, 1 << 30),), 1000, int(NOW) + 600)


def admission(path: str | None = None, node: str = "gpu1") -> Admission:
    return Admission(node, NODE_KEY, KnownKeys([CONTROLLER.public]), Epochs(path, NOW))


def preface(text: str, now: float = NOW, node_key: bytes = NODE_KEY) -> Preface:
    session = {"grant": text, "key": data_plane_key(node_key, text).hex()}
    return parse_preface(program.preface(session, time=int(now))[HEAD.size :])


def refusal(door: Admission, text: str, now: float = NOW, node_key: bytes = NODE_KEY) -> Refusal:
    with pytest.raises(Refusal) as caught:
        door.grant_of(preface(text, now, node_key), now)
    return caught.value


def test_a_controllers_grant_is_honoured_offline() -> None:
    assert admission().grant_of(preface(seal(GRANT, CONTROLLER)), NOW) == GRANT


def test_every_controller_of_the_pool_may_sign() -> None:
    second = SigningKey.generate()
    known = KnownKeys([CONTROLLER.public, second.public])
    door = Admission("gpu1", NODE_KEY, known, Epochs(None, NOW))
    assert door.grant_of(preface(seal(GRANT, second)), NOW) == GRANT
    known.replace([CONTROLLER.public])
    assert refusal(door, seal(GRANT, second)).code == "grant"


def test_an_older_epoch_is_refused_and_the_present_one_goes_on() -> None:
    door = admission()
    door.grant_of(preface(seal(GRANT, CONTROLLER)), NOW)
    newer = replace(GRANT, epoch=4)
    door.grant_of(preface(seal(newer, CONTROLLER)), NOW)
    told = refusal(door, seal(GRANT, CONTROLLER))
    assert (told.code, "taken it over" in told.message) == ("grant", True)
    door.grant_of(preface(seal(newer, CONTROLLER)), NOW)


def test_the_highest_epoch_outlives_the_agent(tmp_path: Path) -> None:
    path = str(tmp_path / "epochs")
    admission(path).grant_of(preface(seal(replace(GRANT, epoch=4), CONTROLLER)), NOW)
    assert "taken it over" in refusal(admission(path), seal(GRANT, CONTROLLER)).message


def test_an_end_outlives_the_agent_until_no_grant_is_left(tmp_path: Path) -> None:
    path = str(tmp_path / "epochs")
    admission(path).end("a-1", 3, NOW + 600, NOW)
    assert refusal(admission(path), seal(GRANT, CONTROLLER)).code == "ended"
    later = Epochs(path, NOW + 601)
    assert not later.ended("a-1")
    assert (tmp_path / "epochs").read_bytes() == b""


def test_an_expired_grant_is_refused() -> None:
    assert refusal(admission(), seal(GRANT, CONTROLLER), NOW + 601).code == "expired"


def test_another_nodes_grant_is_refused() -> None:
    told = refusal(admission(node="gpu2"), seal(GRANT, CONTROLLER))
    assert (told.code, told.message) == ("grant", "the grant is for gpu1, this is gpu2")


def test_a_key_of_another_node_is_refused() -> None:
    assert refusal(admission(), seal(GRANT, CONTROLLER), node_key=b"x" * 32).code == "proof"


def test_who_is_no_controller_of_the_pool_cannot_sign() -> None:
    assert refusal(admission(), seal(GRANT, SigningKey.generate())).code == "grant"


def test_no_changed_byte_of_a_grant_passes() -> None:
    text = seal(GRANT, CONTROLLER)
    door = admission()
    for at, letter in enumerate(text):
        changed = text[:at] + ("A" if letter != "A" else "B") + text[at + 1 :]
        assert refusal(door, changed).code == "grant", at


def test_a_refused_grant_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "epochs"
    door = admission(str(path))
    refusal(door, seal(replace(GRANT, epoch=9), CONTROLLER), node_key=b"x" * 32)
    refusal(door, seal(replace(GRANT, epoch=9), CONTROLLER), NOW + 601)
    assert path.read_bytes() == b""


def test_half_a_line_of_a_killed_agent_costs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "epochs"
    Epochs(str(path), NOW).saw("a-1", 4, NOW + 600, NOW)
    with path.open("ab") as file:
        file.write(b'["a-2", 5')
    epochs = Epochs(str(path), NOW)
    assert not epochs.allows("a-1", 3)
    epochs.saw("a-3", 7, NOW + 600, NOW)
    assert not Epochs(str(path), NOW).allows("a-3", 6)


def test_a_record_that_cannot_be_written_admits_nobody(tmp_path: Path) -> None:
    path = tmp_path / "epochs"
    door = admission(str(path))
    path.unlink()
    os.mkdir(path)
    told = refusal(door, seal(GRANT, CONTROLLER))
    assert (told.code, "cannot write its record" in told.message) == ("no_worker", True)


def test_renewals_do_not_write_each_time(tmp_path: Path) -> None:
    path = tmp_path / "epochs"
    epochs = Epochs(str(path), NOW)
    for seconds in range(0, 600, 30):
        epochs.saw("a-1", 1, NOW + seconds + 600, NOW + seconds)
    assert path.read_bytes().count(b"\n") == 1
