"""A ticket lets one process in, once, for a minute, and betrays nothing of the grant's key.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from outboard.agent.admission import Admission
from outboard.agent.epochs import Epochs
from outboard.agent.preface import HEAD, Preface, parse_preface
from outboard.errors import Refusal
from outboard.model.grant import Grant, data_plane_key, seal
from outboard.model.request import GrantedDevice
from outboard.model.ticket import grant_part, issue, ticket_part
from outboard.pki.signing import KnownKeys, SigningKey
from tests.unit.fakes import program

NOW = 1_900_000_000.0
NODE_KEY = b"n" * 32
CONTROLLER = SigningKey(bytes(range(32)))
GRANT = Grant("s-1", "a-1", 3, "gpu1", (GrantedDevice("gpu1", 0, 1 << 30),), 1000, int(NOW) + 600)


def admission() -> Admission:
    return Admission("gpu1", NODE_KEY, KnownKeys([CONTROLLER.public]), Epochs(None, NOW))


def ticket(grant: Grant = GRANT, life_s: int = 60) -> tuple[str, bytes]:
    text = seal(grant, CONTROLLER)
    return issue(text, data_plane_key(NODE_KEY, text), 1001, 4711, int(NOW) + life_s)


def preface(text: str, key: bytes, purpose: str = "command", now: float = NOW) -> Preface:
    fields = {"time": int(now), "purpose": purpose}
    if purpose == "bulk":
        fields["worker"] = "ab" * 16
    session = {"grant": text, "key": key.hex()}
    return parse_preface(program.preface(session, **fields)[HEAD.size :])


def refusal(door: Admission, told: Preface, now: float = NOW) -> Refusal:
    with pytest.raises(Refusal) as caught:
        door.grant_of(told, now)
    return caught.value


def test_a_ticket_is_honoured_once() -> None:
    door, (text, key) = admission(), ticket()
    assert door.grant_of(preface(text, key), NOW) == GRANT
    told = refusal(door, preface(text, key))
    assert (told.code, told.message) == ("grant", "the ticket was used before")


def test_the_agent_derives_a_tickets_key_from_the_nodes() -> None:
    text, key = ticket()
    assert data_plane_key(NODE_KEY, text) == key
    assert data_plane_key(NODE_KEY, grant_part(text)) != key


def test_a_ticket_says_whose_process_it_is_for() -> None:
    told = ticket_part(ticket()[0])
    assert told is not None
    assert (told.uid, told.pid, told.expires_unix) == (1001, 4711, int(NOW) + 60)
    assert ticket_part(seal(GRANT, CONTROLLER)) is None


def test_a_ticket_that_nobody_used_within_its_time_is_refused() -> None:
    text, key = ticket()
    told = refusal(admission(), preface(text, key, now=NOW + 61), NOW + 61)
    assert (told.code, told.message) == ("expired", "the ticket has expired")


def test_a_tickets_words_cannot_be_changed() -> None:
    text, key = ticket()
    other = issue(grant_part(text), b"x" * 32, 0, 1, int(NOW) + 3600)[0]
    assert refusal(admission(), preface(other, key)).code == "proof"


def test_a_tickets_key_does_not_fit_its_grant() -> None:
    text, key = ticket()
    assert refusal(admission(), preface(grant_part(text), key)).code == "proof"


def test_a_programs_bulk_connection_outlives_ticket_and_takeover() -> None:
    door, (text, key) = admission(), ticket()
    door.grant_of(preface(text, key), NOW)
    newer, newer_key = ticket(replace(GRANT, epoch=4))
    door.grant_of(preface(newer, newer_key), NOW)
    assert door.grant_of(preface(text, key, "bulk"), NOW).epoch == 3
    # Its command connection belongs to a holder that was fenced off.
    fenced, fenced_key = ticket()
    assert "taken it over" in refusal(door, preface(fenced, fenced_key)).message


@pytest.mark.parametrize("payload", ["", "e30", "!!!", "bnVsbA", "eyJ2ZXJzaW9uIjogMX0"])
def test_what_is_no_ticket_is_refused(payload: str) -> None:
    with pytest.raises(Refusal) as caught:
        ticket_part(f"grant.signature.{payload}")
    assert caught.value.code == "grant"
