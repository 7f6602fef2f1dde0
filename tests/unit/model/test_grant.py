"""Grants: only what this pool signed, and a key that only client and agent have.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboard.errors import Refusal
from outboard.model.grant import Grant, HmacSigner, data_plane_key, seal, unseal
from outboard.model.request import GrantedDevice

SIGNER = HmacSigner(b"k" * 32)
GRANT = Grant("s-1", "a-1", 1, "node", (GrantedDevice("node", 0, 1 << 30),), 1000, 2_000_000_000)


def test_a_sealed_grant_is_read_back_as_it_was() -> None:
    assert unseal(seal(GRANT, SIGNER), SIGNER) == GRANT


def test_another_pools_grant_is_refused() -> None:
    with pytest.raises(Refusal, match="not signed by this pool"):
        unseal(seal(GRANT, HmacSigner(b"x" * 32)), SIGNER)


@given(st.integers(0, 1000), st.integers(1, 255))
def test_no_changed_byte_passes(at: int, change: int) -> None:
    text = bytearray(seal(GRANT, SIGNER).encode())
    # The last character of each part may hold bits that no byte has: those change nothing.
    at %= len(text)
    text[at] ^= change
    try:
        assert unseal(text.decode("latin-1"), SIGNER) == GRANT
    except Refusal as refusal:
        assert refusal.code == "grant"


@given(st.text())
def test_any_text_is_refused_or_a_grant(text: str) -> None:
    with pytest.raises(Refusal):
        unseal(text, SIGNER)


def test_the_key_depends_on_node_and_grant() -> None:
    keys = {data_plane_key(node, grant) for node in (b"a", b"b") for grant in ("x.y", "x.z")}
    assert len(keys) == 4
    assert {len(key) for key in keys} == {32}
