"""The status line says what there is, or why there is nothing and what comes next.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import time

from outboard.model.session_file import SessionDevice, SessionFile, SessionNode
from outboard.service.condition import Condition, State

NOW = 1_900_000_000.0
SESSION = SessionFile(
    "s-1",
    nodes=[SessionNode("gpu1", "10.0.0.1:4000", "none")],
    devices=[
        SessionDevice(0, 0, "GPU-1", "H100", 2 << 30),
        SessionDevice(0, 1, "GPU-2", "H100", 2 << 30),
    ],
    grant="g",
    key="00" * 32,
)


def active(**fields: object) -> Condition:
    return Condition(
        State.ACTIVE,
        session=SESSION,
        unused_since_unix=NOW - 192,
        lease_until_unix=NOW + 60,
        **{"reason": "", **fields},  # type: ignore[arg-type]
    )


def test_an_active_service_says_what_it_holds_and_for_how_long_nobody_used_it() -> None:
    line = active().line(NOW)
    assert line.startswith("2 GPUs: H100, 2048 MiB each, on gpu1; unused for 3m12s; lease until ")


def test_a_used_service_says_by_how_many() -> None:
    assert "; 1 program; " in active(programs=1).line(NOW)
    assert "; 3 programs; " in active(programs=3).line(NOW)


def test_a_waiting_service_says_why_and_when_it_tries_again() -> None:
    condition = Condition(State.WAITING, "nobody answers at gpus:7860", NOW + 8)
    expected = "waiting for the pool: nobody answers at gpus:7860; next try in 8s"
    assert condition.line(NOW) == expected


def test_what_is_not_in_force_yet_is_said() -> None:
    assert active(pending="new options wait").line(NOW).endswith("; new options wait")


def test_standby_says_that_nothing_needs_to_be_done() -> None:
    condition = Condition(State.STANDBY, "released after 1800 s without a program")
    assert condition.line(NOW).endswith("; the next CUDA program gets GPUs again")


def test_what_is_not_known_is_null_for_programs() -> None:
    record = Condition(State.STANDBY, "idle").to_json(NOW)
    assert (record["programs"], record["unused_s"], record["lease_until"]) == (None, None, None)


def test_the_line_says_when_the_pool_ends_the_session() -> None:
    condition = Condition(session=SESSION, ends_unix=0.0)
    condition.become(State.ACTIVE)
    clock = time.strftime("%H:%M:%S", time.localtime(0))
    assert f"; the pool ends the session at {clock}" in condition.line(0.0)
    assert condition.to_json(0.0)["ends"] == "1970-01-01T00:00:00Z"


def test_who_uses_a_session_that_is_nearly_over_is_told_how_long_it_lives() -> None:
    condition = active(ends_unix=NOW + 90)
    assert condition.ending(NOW) == ""
    condition.ends_soon = True
    assert condition.ending(NOW).startswith("the GPU session ends in 1m30s, as the pool limits")
    assert condition.to_json(NOW)["ends_in_s"] == 90
    condition.become(State.LOST, "the session is over")
    assert condition.ending(NOW) == ""


def test_the_line_has_what_the_pool_says_of_idleness() -> None:
    assert "; session s-1 has called nothing for 8m; " in active(
        notice="session s-1 has called nothing for 8m", reason="r"
    ).line(NOW)
