"""The tree of errors is what its first page says.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import re

import pytest

from outboard import errors
from outboard.errors import OutboardError, PoolBusy, Refusal, error_from_problem


def _all(root: type[OutboardError]) -> list[type[OutboardError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in _all(child))]


@pytest.mark.parametrize("kind", _all(OutboardError))
def test_every_error_is_drawn_with_its_code_status_and_exit(kind: type[OutboardError]) -> None:
    assert errors.__doc__
    line = next(line for line in errors.__doc__.splitlines() if f" {kind.__name__} " in line)
    if kind is OutboardError:
        return
    drawn = re.sub(r"^.*?[├└]── ", "", line).split()
    code = "(the" if kind is Refusal else kind.code
    assert drawn[1] == code
    assert drawn[-2:] == [str(kind.http_status), str(kind.exit_code)]


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in _all(OutboardError)]
    assert len(codes) == len(set(codes))


def test_a_problem_becomes_the_error_that_it_was() -> None:
    error = error_from_problem({"code": "busy", "detail": "why", "hint": "what"}, 409)
    assert isinstance(error, PoolBusy)
    assert (error.message, error.hint, error.exit_code) == ("why", "what", 125)


def test_an_unknown_problem_keeps_its_words() -> None:
    error = error_from_problem({"code": "of_the_future", "detail": "why"}, 418)
    assert (error.code, error.message, error.http_status) == ("of_the_future", "why", 418)
