"""Why a session is over decides what its holder does next, and so how it is told.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from outboard.controller.answers import Answers
from outboard.errors import NotFound, SessionEnded, SessionIdle


@pytest.mark.parametrize(
    ("ended_by", "reason", "told"),
    [
        ("", "its lease is over", NotFound),
        ("", "idle for 30m00s: user ada may keep GPUs without a call for 30m00s", SessionIdle),
        ("user:root", "idle for too long, I think", SessionEnded),
    ],
)
def test_the_end_of_a_session_is_told_by_what_ended_it(
    ended_by: str, reason: str, told: type[Exception]
) -> None:
    answers = Answers(cast("Any", None), cast("Any", None), lambda _session: None)
    row = SimpleNamespace(
        id="s-1",
        state="ended",
        allocation="a-1",
        user_name="ada",
        host=None,
        ended_by=ended_by,
        reason=reason,
    )
    with pytest.raises(told) as raised:
        answers.require_active(cast("Any", row))
    assert type(raised.value) is told
