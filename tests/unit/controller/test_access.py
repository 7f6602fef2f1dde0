"""Default deny: every route wants a token, scopes hold, others' things are not there.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from typing import Any

import pytest
import requests
from fastapi import APIRouter

from outboard.controller.access import PUBLIC_PATHS, Brake
from outboard.controller.app import create_app
from outboard.controller.service import Service
from outboard.errors import RateLimited
from outboard.ledger import subjects, tokens
from outboard.ledger.transaction import Transaction
from tests.unit.conftest import HANG_GUARD_S
from tests.unit.controller.deployment import Client, Deployment, PlainSessions


def routes(deployment: Deployment) -> list[tuple[str, str]]:
    """Every method and path of the API, with names filled in."""
    names = {"id": "0" * 32, "name": "n1", "index": "0", "subject_kind": "user", "subject": "ann"}
    found = []
    for path, methods in deployment.app.openapi()["paths"].items():
        for method in methods:
            filled = path.replace("{kind}", "gpus")
            for name, value in names.items():
                filled = filled.replace(f"{{{name}}}", value)
            found.append((method.upper(), filled))
    return found


def test_every_route_is_denied_without_a_token(deployment: Deployment) -> None:
    deployment.app.state.parts.access.brake = Brake(burst=1e6)
    listed = routes(deployment)
    assert len(listed) > 25
    for method, path in [*listed, ("GET", "/v1/openapi.json"), ("GET", "/nowhere")]:
        if path in PUBLIC_PATHS:
            continue
        for headers in ({}, {"Authorization": "Bearer ob_0_0_0"}, {"Authorization": "Basic eA=="}):
            answer = requests.request(
                method, deployment.url + path, headers=headers, json={}, timeout=30
            )
            assert answer.status_code == 401, (method, path, answer.text)
            assert answer.json()["code"] == "unauthenticated"
            assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_route_that_forgets_to_ask_is_denied_too(deployment: Deployment) -> None:
    router = APIRouter()

    @router.get("/v1/forgotten")
    async def forgotten() -> dict[str, str]:
        return {"secret": "x"}

    deployment.app.include_router(router)
    assert requests.get(f"{deployment.url}/v1/forgotten", timeout=30).status_code == 401


@pytest.mark.parametrize(
    ("scope", "path", "status"),
    [
        ("use", "/v1/audit", 403),
        ("use", "/v1/users", 403),
        ("use", "/metrics", 403),
        ("use", "/v1/events", 403),
        ("read", "/v1/users", 200),
        ("read", "/metrics", 200),
        ("read", "/v1/audit", 403),
        ("admin", "/v1/audit", 200),
        ("agent", "/v1/sessions", 403),
    ],
)
def test_scopes_hold(deployment: Deployment, scope: str, path: str, status: int) -> None:
    token = deployment.token("ann", scope)
    headers = {"Authorization": f"Bearer {token}"}
    answer = requests.get(deployment.url + path, headers=headers, timeout=30)
    assert answer.status_code == status


def test_another_users_session_is_not_there(ann: Client, bob: Client) -> None:
    session = ann.granted(gpus=2)
    _, waiting = ann.request()
    assert bob.call("GET", "/v1/sessions")[1]["sessions"] == []
    body = {"holder": "", "holder_sha256": "1" * 64}
    for method, path, sent in [
        ("GET", f"/v1/sessions/{session}", None),
        ("POST", f"/v1/sessions/{session}/renew", None),
        ("POST", f"/v1/sessions/{session}/takeover", body),
        ("POST", f"/v1/sessions/{session}/resize", {"share_bytes": [1]}),
        ("DELETE", f"/v1/sessions/{session}", None),
        ("GET", f"/v1/requests/{waiting['request']}", None),
        ("GET", f"/v1/requests/{waiting['request']}/explain", None),
        ("DELETE", f"/v1/requests/{waiting['request']}", None),
    ]:
        status, problem = bob.call(method, path, sent)
        assert (status, problem["code"]) == (404, "not_found"), path
    assert ann.call("GET", f"/v1/sessions/{session}")[1]["state"] == "active"
    shown = [device["sessions"] for device in bob.call("GET", "/v1/devices")[1]["devices"]]
    assert shown == [[], []]
    status, problem = bob.request(user="ann")
    assert (status, problem["code"]) == (403, "forbidden")


def test_a_revoked_token_is_out_at_once(admin: Client, ann: Client) -> None:
    assert ann.call("GET", "/v1/whoami")[1]["name"] == "ann"
    identity = ann.token.split("_")[1]
    assert admin.call("DELETE", f"/v1/tokens/{identity}")[0] == 200
    assert ann.call("GET", "/v1/whoami")[0] == 401


def test_a_stream_ends_with_its_token(deployment: Deployment, admin: Client) -> None:
    watcher = deployment.client("watcher", "use", "read")
    headers = {"Authorization": f"Bearer {watcher.token}"}
    url = f"{deployment.url}/v1/events"
    with requests.get(url, headers=headers, stream=True, timeout=HANG_GUARD_S) as stream:
        lines = stream.iter_lines(decode_unicode=True)
        assert next(lines).startswith(": changes")
        identity = watcher.token.split("_")[1]
        assert admin.call("DELETE", f"/v1/tokens/{identity}")[0] == 200
        assert admin.call("PUT", "/v1/users/later", {"disabled": False})[0] == 200
        for line in lines:
            assert "later" not in line
    watcher.close()


def test_a_disabled_user_is_out_at_once(admin: Client, ann: Client) -> None:
    assert ann.call("GET", "/v1/whoami")[0] == 200
    admin.call("PUT", "/v1/users/ann", {"disabled": True})
    assert ann.call("GET", "/v1/whoami")[0] == 403


def test_a_tokens_text_is_shown_once_and_its_hash_never(admin: Client) -> None:
    body = {"subject": "cem", "scopes": ["use"], "lifetime_s": 60}
    made: dict[str, Any] = admin.call("POST", "/v1/tokens", body)[1]
    listed = admin.call("GET", "/v1/tokens")[1]["tokens"]
    assert made["id"] in {one["id"] for one in listed}
    assert all("sha256" not in name for one in listed for name in one)
    secret = made["token"].split("_")[2]
    assert secret not in str(listed)


def test_guessing_is_slowed_down(deployment: Deployment) -> None:
    statuses = [
        requests.get(f"{deployment.url}/v1/status", timeout=30).status_code for _ in range(40)
    ]
    assert statuses[:20] == [401] * 20
    assert 429 in statuses


def test_the_brake_lets_go_with_time() -> None:
    now = [0.0]
    brake = Brake(burst=2, per_s=1, clock=lambda: now[0])
    brake.attempt("a")
    brake.attempt("a")
    with pytest.raises(RateLimited):
        brake.attempt("a")
    brake.attempt("b")
    now[0] = 1.5
    brake.attempt("a")


def test_the_database_has_no_token_only_its_hash(deployment: Deployment) -> None:
    text = deployment.token("ann")
    rows = deployment.database.read(lambda tx: tokens.list_tokens(tx))
    assert text.split("_")[1] in {row["id"] for row in rows}
    stored = deployment.database.read(
        lambda tx: str(tx.connection.execute(tokens.tokens.select()).all())
    )
    assert text.split("_")[2] not in stored


def test_an_app_can_be_made_without_starting_it(deployment: Deployment) -> None:
    app = create_app(Service(deployment.database, deployment.service.terms), PlainSessions())
    assert "/v1/requests" in app.openapi()["paths"]


def host_client(deployment: Deployment, *scopes: str) -> Client:
    def work(tx: Transaction) -> str:
        subjects.ensure_host(tx, "h-1", "desk")
        subjects.ensure_user(tx, "ann")
        return tokens.create_token(tx, ("host", "h-1"), scopes)

    return Client(deployment.url, deployment.database.write(work))


def test_a_machine_asks_for_its_users_as_its_policy_allows(
    deployment: Deployment, admin: Client
) -> None:
    plain, service = host_client(deployment, "use"), host_client(deployment, "use", "service")
    assert plain.request(user="ann")[0] == 201
    assert plain.request()[1]["code"] == "forbidden"
    admin.call("PUT", "/v1/hosts/h-1", {"policy": "service-only"})
    assert plain.request(user="ann")[1]["code"] == "forbidden"
    # Root's `outboard run` has the machine's token too, but holds by its connection.
    assert service.request(user="ann")[1]["code"] == "forbidden"
    holder = "0" * 64
    assert service.request(user="ann", holder_sha256=holder)[0] == 201
    # What all users of the machine share is its root's.
    assert service.request(holder_sha256=holder)[0] in (201, 202)
    admin.call("PUT", "/v1/hosts/h-1", {"policy": "blocked"})
    assert service.request(user="ann")[1]["code"] == "forbidden"
    plain.close()
    service.close()


def test_a_user_of_services_alone_cannot_ask_directly(
    deployment: Deployment, admin: Client, ann: Client
) -> None:
    admin.call("PUT", "/v1/users/ann", {"direct": False})
    assert ann.request()[1]["code"] == "forbidden"
    service = host_client(deployment, "use", "service")
    assert service.request(user="ann")[0] == 201
    service.close()
