"""Asking, waiting, keeping, giving back: the API as a launcher and a service use it.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from outboard.controller.service import Pace
from outboard.ledger import nodes
from tests.unit.controller.deployment import MIB, Client, Deployment, deployed, eventually, node


def test_a_grant_has_what_a_program_needs(ann: Client) -> None:
    status, answer = ann.request(gpus=2, share={"bytes": 100 * MIB}, program="python x")
    assert status == 201
    session = answer["session"]
    assert [device["share_bytes"] for device in session["devices"]] == [100 * MIB] * 2
    assert answer["grant_expires_unix"] > 0
    assert answer["renew_every_s"] == 1.0
    assert (answer["software"], answer["total_bytes"]) == (True, [1025 * MIB] * 2)
    listed = ann.call("GET", "/v1/sessions")[1]["sessions"]
    assert [one["program"] for one in listed] == ["python x"]
    status, renewed = ann.call("POST", f"/v1/sessions/{session['session']}/renew")
    assert (status, renewed["session"]) == (200, session)
    assert ann.call("DELETE", f"/v1/sessions/{session['session']}")[1]["state"] == "ended"
    devices = ann.call("GET", "/v1/devices")[1]["devices"]
    assert [device["granted_bytes"] for device in devices] == [0, 0]


def test_a_repeated_request_gets_the_same_grant(ann: Client, bob: Client) -> None:
    body = {"id": os.urandom(16).hex(), "gpus": 1}
    first = ann.call("POST", "/v1/requests", body)[1]
    second = ann.call("POST", "/v1/requests", body)[1]
    assert first["allocation"] == second["allocation"]
    assert ann.call("GET", "/v1/status")[1]["sessions"] == 1
    status, problem = bob.call("POST", "/v1/requests", body)
    assert (status, problem["code"]) == (403, "forbidden")


def test_repeated_requests_at_the_same_moment_are_one(ann: Client, deployment: Deployment) -> None:
    body = {"id": os.urandom(16).hex(), "gpus": 1}
    answers: list[dict[str, Any]] = []

    def ask() -> None:
        client = Client(deployment.url, ann.token)
        answers.append(client.call("POST", "/v1/requests", body)[1])
        client.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer["allocation"] for answer in answers}) == 1
    assert ann.call("GET", "/v1/status")[1]["sessions"] == 1


def test_nobody_is_refused_for_servers_that_the_controller_has_not_seen_yet(
    tmp_path: Path,
) -> None:
    slow = Pace(keep_s=600.0, feed_s=600.0, reload_s=600.0, grace_s=0.0)
    with deployed(f"sqlite:///{tmp_path}/ledger.sqlite", pace=slow) as deployment:
        ann = deployment.client("ann")
        deployment.database.write(lambda tx: nodes.register_node(tx, node("n2", 2)))
        ann.granted(gpus=3)
        status, problem = ann.request(gpus=5)
        assert (status, problem["detail"]) == (422, "-n 5: this pool has 4 GPUs")
        ann.close()


def test_who_waits_is_told_why_and_gets_what_becomes_free(ann: Client, bob: Client) -> None:
    first = ann.granted(gpus=2)
    status, waiting = bob.request(gpus=1)
    assert (status, waiting["state"]) == (202, "waiting")
    assert waiting["reason"] == "0 of the 1 GPUs asked for are free"

    def queue() -> list[tuple[object, object]]:
        listed = bob.call("GET", "/v1/queue")[1]["waiting"]
        return [(one["position"], one["user"]) for one in listed]

    eventually(lambda: queue() == [(1, "bob")], "the queue was looked at")
    explained = bob.call("GET", f"/v1/requests/{waiting['request']}/explain")[1]
    assert explained["lines"][0] == "position 1: 0 of the 1 GPUs asked for are free"
    assert explained["devices"][-1] == {
        "node": "n1",
        "index": 1,
        "verdict": "refused",
        "why": "0 MiB are free, 1024 MiB are asked for",
    }
    ann.call("DELETE", f"/v1/sessions/{first}")
    status, answer = bob.call("GET", f"/v1/requests/{waiting['request']}?hold_s=20")
    assert (status, answer["state"]) == (200, "granted")


def test_what_was_granted_is_explained_by_the_pool_as_it_was_then(
    ann: Client, bob: Client, deployment: Deployment
) -> None:
    for name in ("n2", "n3"):
        add = node(name, 1)
        deployment.database.write(lambda tx, add=add: nodes.register_node(tx, add))  # type: ignore[misc]
    half = ann.granted(share={"bytes": 512 * MIB}, server="n1")
    cordon = ("n3", "cordoned", "new fan")
    deployment.database.write(lambda tx: nodes.set_node_state(tx, *cordon))
    eventually(lambda: bool(deployment.service.image.closed.get("n3")), "the cordon is known")
    status, answer = bob.request(share={"bytes": 256 * MIB})
    assert status == 201
    before = bob.call("GET", f"/v1/requests/{answer['request']}/explain")[1]
    # Whatever happens since is not what it was placed by.
    ann.call("DELETE", f"/v1/sessions/{half}")
    deployment.database.write(lambda tx: nodes.set_node_state(tx, "n3", "ready", ""))
    deployment.database.write(lambda tx: nodes.register_node(tx, node("n4", 1)))
    ann.granted(share={"bytes": 100 * MIB}, server="n2")
    session = answer["session"]["session"]
    after = bob.call("GET", f"/v1/sessions/{session}/explain")[1]
    assert after == before
    assert (after["state"], after["lines"][0].split(": ")[1]) == ("granted", f"session {session}")
    assert after["lines"][1].startswith("GPUs in use already before whole ones")
    assert len(after["lines"]) == 2, "it was placed as the rules say"
    would = "it would do, but is whole and would be broken up, 768 MiB left over"
    assert [(one["node"], one["index"], one["why"]) for one in after["devices"]] == [
        ("n1", 0, "chosen: in use already, 256 MiB left over"),
        ("n1", 1, would),
        ("n2", 0, would),
        ("n3", 0, "cordoned: new fan"),
    ]
    assert ann.call("GET", f"/v1/sessions/{session}/explain")[0] == 404, "another user's"


def test_what_was_kept_for_another_is_said_of_who_overtook(
    ann: Client, bob: Client, deployment: Deployment
) -> None:
    deployment.database.write(lambda tx: nodes.register_node(tx, node("n2", 1)))
    ann.granted(share={"bytes": 600 * MIB}, server="n1")
    assert bob.request(gpus=2, server="n1")[1]["state"] == "waiting"

    def queue() -> list[object]:
        return [one["position"] for one in bob.call("GET", "/v1/queue")[1]["waiting"]]

    eventually(lambda: queue() == [1], "the queue was looked at")
    overtaker = ann.request(share={"bytes": 100 * MIB})[1]["request"]
    path = f"/v1/requests/{overtaker}"
    assert ann.call("GET", f"{path}?hold_s=20")[1]["state"] == "granted"
    explained = ann.call("GET", f"{path}/explain")[1]
    assert {(one["node"], one["index"]): one["why"] for one in explained["devices"]} == {
        ("n2", 0): "chosen: broken up, 924 MiB left over",
        ("n1", 0): "it was kept for the first of the queue",
        ("n1", 1): "it was kept for the first of the queue",
    }
    assert len(explained["lines"]) == 2, "it was placed as the rules say"


def test_who_will_not_wait_is_refused(ann: Client, bob: Client) -> None:
    ann.granted(gpus=2)
    status, problem = bob.request(wait_s=0.0)
    assert (status, problem["code"]) == (409, "busy")
    assert bob.call("GET", "/v1/queue")[1]["waiting"] == []


def test_a_client_that_is_silent_loses_its_place_and_its_grant(ann: Client) -> None:
    session = ann.granted(gpus=2)
    _, waiting = ann.request()
    state = lambda: ann.call("GET", f"/v1/sessions/{session}")[1]  # noqa: E731
    eventually(lambda: state()["state"] == "ended", "the grant that nobody picked up ended")
    assert state()["reason"] == "nobody picked it up"
    # Looking at a request is a sign of its client; the queue shows it without one.
    eventually(lambda: not ann.call("GET", "/v1/queue")[1]["waiting"], "the request is gone")
    found = ann.call("GET", f"/v1/requests/{waiting['request']}")[1]
    assert found["state"] in ("lost", "granted")


def test_a_renewed_lease_outlives_its_length(ann: Client) -> None:
    session = ann.granted()
    first = ann.call("GET", f"/v1/sessions/{session}")[1]["lease_expires"]
    ann.call("POST", f"/v1/sessions/{session}/renew")
    eventually(
        lambda: ann.call("GET", f"/v1/sessions/{session}")[1]["lease_expires"] > first,
        "the renewal was written",
    )


def test_a_dry_run_takes_nothing(ann: Client) -> None:
    status, answer = ann.request(dry_run=True, gpus=2)
    assert (status, answer["fits"], len(answer["devices"])) == (200, True, 2)
    assert ann.call("GET", "/v1/status")[1]["sessions"] == 0
    assert ann.call("GET", "/v1/queue")[1]["waiting"] == []
    ann.granted(gpus=2)


def test_a_dry_run_says_what_would_have_to_be_free(ann: Client, bob: Client) -> None:
    ann.granted(share={"bytes": 300 * MIB})
    ann.granted(share={"bytes": 800 * MIB})
    status, answer = bob.request(dry_run=True, gpus=2)
    assert (status, answer["fits"], answer["position"]) == (200, False, 1)
    assert [one["lacking_bytes"] for one in answer["needs"]] == [300 * MIB, 800 * MIB]
    bob.request(gpus=2)
    _, behind = ann.request(dry_run=True)
    assert (behind["fits"], behind["position"], behind["needs"]) == (False, 2, [])
    assert len(ann.call("GET", "/v1/queue")[1]["waiting"]) == 1


def test_a_dry_run_knows_the_limits(ann: Client, admin: Client) -> None:
    admin.call("PUT", "/v1/limits/user/ann/gpus", {"value": 1})
    ann.granted(share={"bytes": 100 * MIB})
    status, answer = ann.request(dry_run=True, share={"bytes": 100 * MIB})
    assert (status, answer["fits"]) == (200, False)
    assert "the limit on GPUs at once of user ann is 1" in answer["reason"]
    status, problem = ann.request(dry_run=True, gpus=2)
    assert (status, problem["code"]) == (403, "limit_reached")


def test_a_cancelled_request_waits_no_more(ann: Client, bob: Client) -> None:
    ann.granted(gpus=2)
    _, waiting = bob.request()
    assert bob.call("DELETE", f"/v1/requests/{waiting['request']}")[1]["cancelled"] is True
    found = bob.call("GET", f"/v1/requests/{waiting['request']}")[1]
    assert found["state"] == "cancelled"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"gpus": 3}, "too_many_gpus"),
        ({"share": {"bytes": 2048 * MIB}}, "share_too_large"),
        ({"share": {"bytes": 1}}, "share_too_small"),
        ({"server": "n9"}, "nothing_matches"),
        (
            {"filters": [{"key": "device.name", "operator": "=", "value": "H100"}]},
            "nothing_matches",
        ),
        ({"filters": [{"key": "device.memory", "operator": ">=", "value": "x"}]}, "malformed"),
        ({"gpus": 0}, "malformed"),
        ({"share": {"bytes": 1, "millionths": 1}}, "malformed"),
        ({"id": "x"}, "malformed"),
        ({"more": 1}, "malformed"),
    ],
)
def test_what_can_never_be_is_refused_at_once(ann: Client, more: dict[str, Any], code: str) -> None:
    status, problem = ann.request(**more)
    assert status in (400, 422)
    assert problem["code"].startswith(code)
    assert set(problem) == {"type", "title", "status", "detail", "code", "hint", "request_id"}


def test_a_limit_is_named_and_what_is_over_it_waits(admin: Client, ann: Client) -> None:
    path = "/v1/limits/user/ann/gpus"
    assert admin.call("PUT", path, {"value": 1})[0] == 200
    status, problem = ann.request(gpus=2)
    assert (status, problem["code"]) == (403, "limit_reached")
    assert problem["detail"] == "the limit on GPUs at once of user ann is 1"
    session = ann.granted(gpus=1)
    status, waiting = ann.request(gpus=1)
    assert status == 202
    eventually(
        lambda: (
            "the limit on GPUs at once of user ann is 1"
            in ann.call("GET", f"/v1/requests/{waiting['request']}")[1]["reason"]
        ),
        "the limit is the reason",
    )
    ann.call("DELETE", f"/v1/sessions/{session}")
    granted = ann.call("GET", f"/v1/requests/{waiting['request']}?hold_s=20")[1]
    assert granted["state"] == "granted"


def test_a_take_over_fences_the_last_holder_off(ann: Client) -> None:
    session = ann.granted()
    secrets = ["a secret", "another", "a third"]
    one, two, three = (hashlib.sha256(text.encode()).hexdigest() for text in secrets)
    path = f"/v1/sessions/{session}/takeover"
    assert ann.call("POST", path, {"holder": "", "holder_sha256": one})[1]["epoch"] == 2
    body = {"holder": secrets[0], "holder_sha256": two}
    assert ann.call("POST", path, body)[1]["epoch"] == 3
    assert ann.call("POST", path, body)[1]["epoch"] == 3  # repeated: its answer was lost
    status, problem = ann.call("POST", path, {"holder": secrets[0], "holder_sha256": three})
    assert (status, problem["code"]) == (409, "stale")
    renew = f"/v1/sessions/{session}/renew"
    assert ann.call("POST", renew, {"holder": secrets[0]})[1]["code"] == "stale"
    assert ann.call("POST", renew)[1]["code"] == "stale"
    assert ann.call("POST", renew, {"holder": secrets[1]})[0] == 200


def test_a_holder_is_told_that_somebody_ended_its_session(ann: Client, admin: Client) -> None:
    """A service must not begin the next one by itself then (docs/internals/service.md)."""
    for who, by in ((admin, "an administrator"), (ann, "its owner")):
        session = ann.granted()
        path = f"/v1/sessions/{session}"
        assert who.call("DELETE", f"{path}?reason=enough")[0] == 200
        for action, body in (
            ("renew", None),
            ("takeover", {"holder": "", "holder_sha256": "0" * 64}),
        ):
            status, problem = ann.call("POST", f"{path}/{action}", body)
            assert (status, problem["code"]) == (410, "session_ended")
            assert problem["detail"] == f"session {session} was ended by {by}: enough"


def test_a_holder_whose_session_a_rule_ended_may_ask_for_the_next(
    admin: Client, ann: Client
) -> None:
    assert admin.call("PUT", "/v1/limits/user/ann/session_s", {"value": 1})[0] == 200
    path = f"/v1/sessions/{ann.granted()}/renew"
    eventually(lambda: ann.call("POST", path)[0] == 404, "its longest time is up")
    assert ann.call("POST", path)[1]["code"] == "not_found"


def test_a_holder_can_be_named_in_the_request(ann: Client) -> None:
    hashed = hashlib.sha256(b"a secret").hexdigest()
    session = ann.granted(holder_sha256=hashed)
    renew = f"/v1/sessions/{session}/renew"
    assert ann.call("POST", renew, {"holder": "wrong"})[1]["code"] == "stale"
    assert ann.call("POST", renew, {"holder": "a secret"})[0] == 200


def test_who_waits_for_a_while_is_told_that_it_was_too_short(ann: Client, bob: Client) -> None:
    ann.granted(gpus=2)
    status, problem = bob.request(wait_s=0.1, hold_s=1.0)
    assert (status, problem["code"]) == (408, "waited_too_long")
    assert problem["detail"].startswith("no GPU within 0s: ")


def test_a_resize_is_all_or_nothing(ann: Client) -> None:
    session = ann.granted(share={"bytes": 100 * MIB})
    path = f"/v1/sessions/{session}/resize"
    grown = ann.call("POST", path, {"share_bytes": [300 * MIB]})[1]
    assert grown["session"]["devices"][0]["share_bytes"] == 300 * MIB
    status, problem = ann.call("POST", path, {"share_bytes": [3000 * MIB]})
    assert (status, problem["code"]) == (409, "busy")
    used = [one["granted_bytes"] for one in ann.call("GET", "/v1/devices")[1]["devices"]]
    assert sorted(used) == [0, 300 * MIB]


def test_a_drained_server_takes_nothing_new_and_is_empty_at_the_deadline(
    admin: Client, ann: Client
) -> None:
    session = ann.granted()
    body = {"reason": "new fan", "deadline_s": 0.0}
    assert admin.call("POST", "/v1/nodes/n1/drain", body)[0] == 200
    eventually(
        lambda: ann.call("GET", f"/v1/sessions/{session}")[1]["reason"] == "n1 is drained",
        "the session ended",
    )
    status, waiting = ann.request()
    assert status == 202
    admin.call("POST", "/v1/nodes/n1/resume")
    answer = ann.call("GET", f"/v1/requests/{waiting['request']}?hold_s=20")[1]
    assert answer["state"] == "granted"


def test_usage_is_the_same_by_user_and_by_device(admin: Client, ann: Client, bob: Client) -> None:
    for client in (ann, bob):
        client.call("DELETE", f"/v1/sessions/{client.granted(share={'millionths': 300_000})}")
    by_user = admin.call("GET", "/v1/usage?by=user")[1]
    query = f"since={by_user['since']}&until={by_user['until']}".replace("+", "%2B")
    by_device = admin.call("GET", f"/v1/usage?by=device,day&{query}")[1]
    total = sum(line["byte_us"] for line in by_user["held"])
    assert total == sum(line["byte_us"] for line in by_device["held"]) > 0
    own = ann.call("GET", f"/v1/usage?by=node&{query}")[1]["held"]
    assert {line["user"] for line in own} == {"ann"}
    assert admin.call("GET", "/v1/usage?by=user,colour")[0] == 400


def test_the_audit_log_says_who_did_what(admin: Client, ann: Client) -> None:
    admin.call("PUT", "/v1/users/cem", {"weight": 2, "groups": ["g1"]})
    session = ann.granted()
    lines = admin.call("GET", "/v1/audit")[1]["audit"]
    done = [(line["actor"], line["action"], line["subject"]) for line in lines]
    assert ("user:root", "user.put", "cem") in done
    assert ("ann", "grant", session) in done


def test_changes_are_streamed_and_the_stream_goes_on_where_it_broke(
    admin: Client, ann: Client, deployment: Deployment
) -> None:
    import requests

    headers = {"Authorization": f"Bearer {admin.token}"}
    url = f"{deployment.url}/v1/events"
    with requests.get(url, headers=headers, stream=True, timeout=30) as stream:
        lines = stream.iter_lines(decode_unicode=True)
        assert next(lines).startswith(": changes")
        session = ann.granted()
        seen = ""
        for line in lines:
            if line.startswith("id: "):
                seen = line.removeprefix("id: ")
            if line == f'data: {{"subject": "{session}"}}':
                break
    headers["Last-Event-ID"] = seen
    with requests.get(url, headers=headers, stream=True, timeout=30) as stream:
        for line in stream.iter_lines(decode_unicode=True):
            if session in line:
                break
