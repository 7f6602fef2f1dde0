"""The preface: only what proves its key passes, and everything is bounded.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboard.agent.preface import (
    CLOCK_TOLERANCE_S,
    HEAD,
    Nonces,
    Preface,
    body_bytes,
    parse_preface,
    proof_of,
    refusal_bytes,
    verify_proof,
)
from outboard.errors import Refusal
from tests.unit.fakes import program

KEY = bytes(range(32))
NOW = 1_900_000_000
SESSION = {"key": KEY.hex(), "grant": "payload.signature"}


def made(**changes: Any) -> Preface:
    data = program.preface(SESSION, **{"time": NOW, **changes})
    assert body_bytes(data[: HEAD.size]) == len(data) - HEAD.size
    return parse_preface(data[HEAD.size :])


def test_what_a_client_writes_passes() -> None:
    preface = made()
    assert (preface.purpose, preface.worker, preface.grant) == ("command", "", SESSION["grant"])
    verify_proof(KEY, preface, NOW)
    verify_proof(KEY, made(purpose="bulk", worker="0" * 32), NOW)


def test_the_proof_is_the_contracts() -> None:
    # Fixed by docs/internals/session.md: changing what is signed breaks every client.
    preface = Preface("command", "0.1.0", "ab" * 32, "g", "0" * 32, 5, "", "")
    assert proof_of(KEY, preface) == (
        "24102c1b767904735f1fcba80b012ac2c57fb43edd50d1e5c458d240cb012b5c"
    )


@pytest.mark.parametrize("name", ["proof", "grant", "nonce", "worker"])
def test_a_changed_field_is_noticed(name: str) -> None:
    good = made(purpose="bulk", worker="0" * 32)
    fields = {slot: getattr(good, slot) for slot in Preface.__slots__}
    fields[name] = fields[name][:-1] + ("1" if fields[name][-1] != "1" else "2")
    with pytest.raises(Refusal, match="does not fit its grant"):
        verify_proof(KEY, Preface(**fields), NOW)


@pytest.mark.parametrize("apart", [CLOCK_TOLERANCE_S + 1, -CLOCK_TOLERANCE_S - 1])
def test_an_old_or_early_preface_is_refused(apart: int) -> None:
    with pytest.raises(Refusal, match=r"clocks .* 301 s apart"):
        verify_proof(KEY, made(), NOW + apart)


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"GET / HT", "malformed"),
        (struct.pack("<4sHH", b"OUTB", 2, 10), "version"),
        (struct.pack("<4sHH", b"OUTB", 1, 0), "malformed"),
        (struct.pack("<4sHH", b"OUTB", 1, 4089), "malformed"),
    ],
)
def test_a_head_that_is_no_preface_is_refused(head: bytes, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        body_bytes(head)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "other"},
        {"purpose": "bulk", "worker": ""},
        {"time": "soon"},
        {"time": True},
        {"time": -1},
        {"nonce": "x"},
        {"protocol": "AB" * 32},
        {"release": ""},
        {"grant": "ü"},
        {"proof": "0"},
    ],
)
def test_a_wrong_field_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        made(**changes)
    assert caught.value.code == "malformed"


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Refusal):
        parse_preface(data)


@given(st.recursive(st.none() | st.text() | st.integers(), st.lists))
def test_any_json_is_refused(value: object) -> None:
    with pytest.raises(Refusal):
        parse_preface(json.dumps(value).encode())


def test_a_nonce_passes_once() -> None:
    nonces = Nonces(most=3)
    nonces.use("a", NOW)
    with pytest.raises(Refusal, match="seen before"):
        nonces.use("a", NOW + 1)
    nonces.use("b", NOW)
    nonces.use("c", NOW)
    with pytest.raises(Refusal, match="too many"):
        nonces.use("d", NOW)
    nonces.use("d", NOW + 2 * CLOCK_TOLERANCE_S + 1)


def test_a_refusal_is_what_the_contract_says() -> None:
    data = refusal_bytes(Refusal("ended", "it has", "start anew"))
    magic, version, length = struct.unpack("<4sHH", data[:8])
    assert (magic, version, length) == (b"OUTE", 1, len(data) - 8)
    assert json.loads(data[8:]) == {"code": "ended", "message": "it has", "hint": "start anew"}
