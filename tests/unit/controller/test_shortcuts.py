"""The short way through the API answers what the long way answers.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from outboard.controller.shortcuts import Shortcuts
from tests.unit.controller.deployment import HANG_GUARD_S, MIB, Deployment

Call = Callable[..., tuple[int, dict[str, Any]]]
SHORT, LONG = "application/json", "application/json; charset=utf-8"


@pytest.fixture
def short_answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were answered the short way."""
    found: list[str] = []
    before = Shortcuts.answer

    async def answer(self: Shortcuts, scope: Any, receive: Any, token: Any) -> Any:
        response, receive = await before(self, scope, receive, token)
        if response is not None:
            found.append(scope["route"].path)
        return response, receive

    monkeypatch.setattr(Shortcuts, "answer", answer)
    return found


@pytest.fixture
def call(deployment: Deployment) -> Iterator[Call]:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {deployment.token('ann')}"

    def work(method: str, path: str, body: Any, kind: str) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = session.request(
            method,
            deployment.url + path,
            data=data,
            headers={"Content-Type": kind},
            timeout=HANG_GUARD_S,
        )
        return answer.status_code, answer.json()

    yield work
    session.close()


def asking(**more: object) -> dict[str, object]:
    return {"id": os.urandom(16).hex(), "gpus": 1, "share": {"bytes": 10 * MIB}, **more}


def test_a_grant_and_its_end_are_alike_by_both_ways(call: Call, short_answers: list[str]) -> None:
    found = []
    for kind, hold in ((SHORT, "hold_s=0"), (LONG, "hold_s=0&reason=released")):
        status, answer = call("POST", "/v1/requests", asking(), kind)
        assert status == 201, answer
        path = f"/v1/sessions/{answer['session']['session']}?{hold}"
        ended = call("DELETE", path, b"", kind)
        found.append((sorted(answer), answer["renew_every_s"], ended[0], sorted(ended[1])))
    assert found[0] == found[1]
    assert short_answers == ["/v1/requests", "/v1/sessions/{id}"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        {"id": "x", "gpus": 1},
        {"gpus": 0},
        {**asking(), "gpus": "1"},
        {**asking(), "gpus": 1.5},
        {**asking(), "unknown": 1},
        {**asking(), "name": "a\nb"},
        {**asking(), "wait_s": -1},
        asking(gpus=3),
        asking(share={"bytes": 5000 * MIB}),
        asking(user="bob"),
    ],
)
def test_what_is_refused_is_refused_in_the_same_words(call: Call, body: Any) -> None:
    status, answer = call("POST", "/v1/requests", body, SHORT)
    other_status, other = call("POST", "/v1/requests", body, LONG)
    assert 400 <= status < 500, answer
    for problem in (answer, other):
        problem.pop("request_id")
    assert (status, answer) == (other_status, other)


def test_a_scope_is_asked_for_on_the_short_way(deployment: Deployment) -> None:
    token = deployment.token("eve", "read")
    answer = requests.post(
        f"{deployment.url}/v1/requests",
        json=asking(),
        headers={"Authorization": f"Bearer {token}"},
        timeout=HANG_GUARD_S,
    )
    assert answer.status_code == 403, answer.text
