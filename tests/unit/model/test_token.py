"""Tokens: read as they are written, refused without being repeated.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import pytest

from outboard.errors import ConfigurationError
from outboard.model.token import Token, hash_secret, parse_token

TOKEN = Token("0f3a9c21", "ab" * 32, "0123456789abcdef")


def test_a_token_is_read_as_it_is_written() -> None:
    read = parse_token(f"  {TOKEN}\n")
    assert (read.id, read.secret, read.authority) == (TOKEN.id, TOKEN.secret, TOKEN.authority)
    assert read.secret_sha256 == hash_secret("ab" * 32)


@pytest.mark.parametrize("change", [str.upper, lambda text: text[:-1], lambda text: text + "0"])
def test_what_is_not_whole_is_refused_and_not_repeated(change: object) -> None:
    assert callable(change)
    text = change(str(TOKEN))
    with pytest.raises(ConfigurationError) as caught:
        parse_token(text)
    assert "abab" not in caught.value.message + caught.value.hint


def test_a_secret_is_not_in_a_traceback() -> None:
    assert "abab" not in repr(TOKEN)
