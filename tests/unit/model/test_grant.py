"""Grants: only what this pool signed, and a key that only client and agent have.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
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
    text[at % len(text)] ^= change
    with pytest.raises(Refusal) as caught:
        unseal(text.decode("latin-1"), SIGNER)
    assert caught.value.code == "grant"


@given(st.text())
def test_any_text_is_refused_or_a_grant(text: str) -> None:
    with pytest.raises(Refusal):
        unseal(text, SIGNER)


class OtherRelease(Grant):
    """A grant whose payload this release does not know."""

    def payload(self) -> bytes:
        return b'{"version": 2}'


def test_a_grant_of_another_release_is_refused_as_such() -> None:
    fields = (GRANT.session, GRANT.allocation, 1, "node", GRANT.devices, 0, 0)
    with pytest.raises(Refusal) as caught:
        unseal(seal(OtherRelease(*fields), SIGNER), SIGNER)
    assert caught.value.code == "version"


def test_the_key_is_rfc_5869s() -> None:
    # One block of HKDF-SHA256, computed by an implementation that is not ours.
    expected = HKDF(
        algorithm=hashes.SHA256(),
        length=32,
        salt=hashlib.sha256(b"a.b").digest(),
        info=b"outboard data plane 1",
    ).derive(b"n" * 32)
    assert data_plane_key(b"n" * 32, "a.b") == expected


def test_the_key_depends_on_node_and_grant() -> None:
    keys = {data_plane_key(node, grant) for node in (b"a", b"b") for grant in ("x.y", "x.z")}
    assert len(keys) == 4
    assert {len(key) for key in keys} == {32}
