"""The controller's side of its agents: enrolment, reports, orders (docs/internals/agent.md).

SPDX-License-Identifier: Apache-2.0

Most reports change nothing: they are answered from one read, and heartbeats and renewals of many
nodes go to the database together, every few seconds. `enrol` and `flush` block; `report`, `wait`,
`flush_for_ever` and `watch_for_ever` belong to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outboard.controller.figures import FIGURES
from outboard.controller.turns import Turns
from outboard.controller.uses import Uses, read_uses
from outboard.errors import Forbidden, MalformedRequest, NodeRemoved, OutboardError
from outboard.ledger import accounting, allocations, enrolment, idleness, nodes, standing
from outboard.ledger.database import Database
from outboard.ledger.requests import Terms
from outboard.ledger.rows import portions
from outboard.ledger.standing import NodeStanding, Standing
from outboard.ledger.transaction import Transaction
from outboard.model.grant import LIFETIME_S
from outboard.model.node import Device, Node
from outboard.pki.sealing import SealingKey

log = logging.getLogger("outboard.controller.fleet")

REPORT_EVERY_S = 10.0
FLUSH_EVERY_S = 5.0
WATCH_EVERY_S = 0.5
LONGEST_WAIT_S = 30.0
REMEMBER_S = 2 * LIFETIME_S
_LEAST_PAUSE_S = 0.05
_MOST_DEVICES = 256
_MOST_HEARD = 64
_MOST_SESSIONS = 4096

Order = dict[str, object]
Figures = dict[str, float]


class Fleet:
    """All agents of one pool, as one of its controllers meets them."""

    def __init__(
        self,
        database: Database,
        sealing: SealingKey,
        authority_mark: str,
        addresses: Sequence[str],
        terms: Terms,
        bequest: Mapping[str, str] | None = None,
        report_every_s: float = REPORT_EVERY_S,
        flush_every_s: float = FLUSH_EVERY_S,
        turns: Turns | None = None,
    ) -> None:
        """`addresses` are the URLs that agents and hosts are told to call; `bequest` is what a
        controller that joins is given, None where there can be no other."""
        self._bequest = bequest
        self._database = database
        self._turns = turns or Turns(database)
        self._sealing = sealing
        self._mark = authority_mark
        self._addresses = list(addresses)
        self._terms = terms
        self._report_every_s = report_every_s
        self._flush_every_s = flush_every_s
        self._lock = threading.Lock()
        self._heard: set[str] = set()
        self._programs: dict[str, int] = {}
        self._health: dict[str, dict[int | None, str]] = {}
        self._figures: dict[str, dict[int, Figures]] = {}
        self._held: dict[str, list[int]] = {}
        self._used_us: dict[str, int] = {}
        self._uses = Uses()
        self._ending: dict[str, list[Standing]] = {}
        self._changed = asyncio.Condition()
        self._poked = asyncio.Event()

    def enrol(self, body: Mapping[str, Any]) -> dict[str, object]:
        """A machine joins by a join token; raises `Unauthenticated` or `Forbidden`."""
        name, machine = _text(body, "name", 128), _text(body, "machine", 128)
        text = _text(body, "token", 256)
        key = os.urandom(32)
        sealed = self._sealing.seal(name, key)

        def write(tx: Transaction) -> dict[str, object]:
            scopes = enrolment.use_join_token(tx, text).scopes
            pool = standing.controllers_told(tx)
            addresses = dict.fromkeys([*self._addresses, *pool["controllers"]])
            told = {"name": name, "controllers": list(addresses)}
            if enrolment.CONTROLLER_SCOPE in scopes:
                if self._bequest is None:
                    raise Forbidden(
                        "this pool's ledger is a SQLite file, which one controller has for itself",
                        "several take a pool that was made with PostgreSQL: outboard controller"
                        " init --database postgresql://…",
                    )
                enrolment.enrol_controller(tx, name, machine)
                return {"kind": "controller", **told, **self._bequest}
            if enrolment.NODE_SCOPE not in scopes:
                token = enrolment.enrol_host(tx, name, machine, scopes, self._mark)
                return {"kind": "host", **told, "token": token}
            token = enrolment.enrol_node(tx, name, machine, sealed, self._mark)
            told["keys"] = pool["keys"]
            return {"kind": "node", **told, "token": token, "node_key": key.hex()}

        answer = self._database.write(write)
        log.info("%s %s has joined", answer["kind"], name)
        return answer

    async def report(self, node: str, body: Mapping[str, Any]) -> dict[str, object]:
        """An agent says what is on its node; the answer says what is to end there."""
        running = _sessions(body)
        ended = [str(name) for name in _list(body, "ended", _MOST_SESSIONS)]
        uses = read_uses(node, body)
        told = body.get("inventory")
        described = None if told is None else _node(node, told)
        more = {} if told is None else _about(told, body)
        health = _health(body)
        over = [use for use in uses if use.ended_us is not None]  # forgotten with the answer
        news = _News(node, described, more, health, running, ended, over)
        known = self._health.get(node) == health
        nothing_new = described is None and not ended and not over
        if nothing_new:
            seen = await self._turns.glance(lambda tx: standing.node_standing(tx, node))
            _require_present(node, seen)
            known = known or (seen.healthy and not any(health.values()))
            nothing_new = seen.reconciled and known
        if not nothing_new:
            seen = await self._turns.write(lambda tx: _take_in(tx, news, known))
        self._health[node] = dict(health)
        self._figures[node] = _figures(body)
        self._uses.keep(use for use in uses if use.ended_us is None)
        with self._lock:
            self._heard.add(node)
            for allocation, session in running.items():
                self._programs[allocation] = session["programs"]
                self._held[session["session"]] = session["held_bytes"]
                if session["unused_us"] is not None:
                    # By this process's clock: it is written down later, perhaps much later.
                    used_us = _monotonic_us() - session["unused_us"]
                    self._used_us[allocation] = max(used_us, self._used_us.get(allocation, used_us))
        return {
            **seen.pool,
            "report_every_s": self._report_every_s,
            "want_inventory": described is None and not seen.has_inventory,
            "end": _to_end(seen.live, running),
        }

    def held_bytes(self, session: str) -> list[int] | None:
        """What a session's programs hold of each device on the node that reported it last."""
        return self._held.get(session)

    def figures(self, node: str, index: int) -> Figures:
        """What NVML said last of a device whose agent reports here; what is not known is absent."""
        return self._figures.get(node, {}).get(index, {})

    def poke(self) -> None:
        """Something began to end: agents are told at once. Call it on the event loop."""
        self._poked.set()

    async def wait(self, node: str, known: frozenset[str], wait_s: float) -> dict[str, object]:
        """What is to end on a node besides `known`, waiting for it at most so long."""

        def orders() -> list[Order]:
            return [
                _order(one) for one in self._ending.get(node, ()) if one.allocation not in known
            ]

        self._poked.set()
        async with self._changed:
            try:
                async with asyncio.timeout(min(LONGEST_WAIT_S, max(0.0, wait_s))):
                    await self._changed.wait_for(lambda: bool(orders()))
            except TimeoutError:
                pass
        return {"end": orders()}

    async def watch_for_ever(self) -> None:
        """Keep what is ending in mind, also what another controller ends."""
        while True:
            self._poked.clear()
            try:
                found = await asyncio.to_thread(self._database.read, standing.ending)
                async with self._changed:
                    self._ending = found
                    self._changed.notify_all()
            except OutboardError as error:
                log.error("what is ending cannot be read: %s", error.message)
            await asyncio.sleep(_LEAST_PAUSE_S)
            try:
                async with asyncio.timeout(WATCH_EVERY_S):
                    await self._poked.wait()
            except TimeoutError:
                pass

    async def flush_for_ever(self) -> None:
        """Write down who was heard of, and which programs run."""
        while True:
            await asyncio.sleep(self._flush_every_s)
            try:
                await asyncio.to_thread(self.flush)
            except OutboardError as error:
                log.error("heartbeats cannot be written: %s", error.message)

    def flush(self) -> None:
        """One UPDATE for many heartbeats, one for all renewals, since the last time."""
        with self._lock:
            heard, self._heard = self._heard, set()
            programs, self._programs = self._programs, {}
            used_us, self._used_us = self._used_us, {}
        if not heard:
            return
        uses = self._uses.take()

        def write(tx: Transaction) -> None:
            allocations.renew(tx, (), programs, self._terms)
            now_us = _monotonic_us()
            idleness.note_use(tx, {one: max(0, now_us - at) for one, at in used_us.items()})
            accounting.record_usage(tx, uses)

        try:
            self._database.write(write)
            # Only then: what was used must not look older than when its server was heard of.
            for part in portions(heard, _MOST_HEARD):  # who waits for the writer comes between
                self._database.write(lambda tx, part=part: nodes.heartbeats(tx, part))  # type: ignore[misc]
        except OutboardError:
            with self._lock:
                self._heard |= heard
                self._programs = {**programs, **self._programs}
                self._used_us = {**used_us, **self._used_us}
            self._uses.give_back(uses)
            raise


@dataclass(frozen=True, slots=True)
class _News:
    """What a report says that the ledger may not know."""

    node: str
    described: Node | None
    more: Mapping[str, str]
    health: Mapping[int | None, str]
    running: Mapping[str, Mapping[str, Any]]
    ended: Sequence[str]
    over: Sequence[accounting.Use]


def _take_in(tx: Transaction, news: _News, health_known: bool) -> NodeStanding:
    """Write the news down; returns how the node stands then."""
    before = standing.ask_standing(tx, news.node)
    for allocation in sorted(news.ended):
        accounting.close_usage(tx, allocation, news.node)
        allocations.release(tx, allocation, news.node)
    seen = before().without(news.ended)
    _require_present(news.node, seen)
    if news.over:
        accounting.record_usage(tx, news.over)
    if news.described is not None:
        nodes.register_node(tx, news.described, **news.more)
    if news.described is not None or not health_known:
        nodes.set_health(tx, news.node, news.health)
    if news.described is not None or not seen.reconciled:
        # With the sign that the node was heard of: else its sessions would look as idle as old.
        unused_us = {one: session["unused_us"] for one, session in news.running.items()}
        idleness.note_use(
            tx, {one: amount for one, amount in unused_us.items() if amount is not None}
        )
        epochs = {one: session["epoch"] for one, session in news.running.items()}
        nodes.reconcile(tx, news.node, epochs)
        seen = standing.node_standing(tx, news.node)
    return seen


def _require_present(node: str, seen: NodeStanding) -> None:
    if seen.state == "removed":
        raise NodeRemoved(f"{node} was removed from this pool", "enrol it: outboard join TOKEN")


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000


def _to_end(live: Mapping[str, Standing], running: Mapping[str, Mapping[str, Any]]) -> list[Order]:
    """What is ending, and what runs although the ledger does not know it, or knows a newer end."""
    orders = {name: _order(one) for name, one in live.items() if one.state == "ending"}
    for allocation, session in running.items():
        known = live.get(allocation)
        if known is None or known.epoch < session["epoch"]:
            orders[allocation] = {
                "session": session["session"],
                "allocation": allocation,
                "reason": "the pool does not know this session",
                "remember_s": REMEMBER_S,
            }
    return list(orders.values())


def _order(one: Standing) -> Order:
    return {
        "session": one.session,
        "allocation": one.allocation,
        "reason": one.reason,
        "remember_s": REMEMBER_S,
    }


def _node(name: str, told: Any) -> Node:
    """The inventory in a report; its agent is trusted to describe its own node, no more."""
    try:
        return Node(
            name=name,
            address=str(told["address"])[:256],
            tls=str(told["tls"])[:16],
            driver=str(told["driver"])[:512],
            driver_version=int(told["driver_version"]),
            protocol=str(told["protocol"])[:64],
            software=bool(told["software"]),
            devices=tuple(_device(one) for one in _list(told, "devices", _MOST_DEVICES)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedRequest(f"the inventory cannot be read: {error!r}") from error


def _about(told: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, str]:
    """What is known of a node beside its inventory."""
    return {
        "hostname": str(told.get("hostname", ""))[:128],
        "release": str(report.get("release", ""))[:32],
        "driver_release": str(told.get("driver_release", ""))[:32],
    }


def _device(told: Mapping[str, Any]) -> Device:
    return Device(
        index=_whole(told, "index"),
        uuid=str(told["uuid"])[:128],
        name=str(told["name"])[:128],
        total_bytes=_whole(told, "total_bytes"),
        capacity_bytes=_whole(told, "capacity_bytes"),
        context_bytes=_whole(told, "context_bytes"),
        minimum_share_bytes=_whole(told, "minimum_share_bytes"),
        compute_capability=str(told["compute_capability"])[:16],
        pci=str(told["pci"])[:32],
        multiprocessors=_whole(told, "multiprocessors"),
    )


def _sessions(body: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sessions of a report, by allocation."""
    found = {}
    for told in _list(body, "sessions", _MOST_SESSIONS):
        if not isinstance(told, dict):
            raise MalformedRequest("a session is an object")
        held = [int(amount) for amount in _list(told, "held_bytes", _MOST_DEVICES)]
        found[_text(told, "allocation", 64)] = {
            "session": _text(told, "session", 64),
            "epoch": _whole(told, "epoch"),
            "programs": _whole(told, "programs"),
            "held_bytes": held,
            "unused_us": None if told.get("unused_us") is None else _whole(told, "unused_us"),
        }
    return found


def _health(body: Mapping[str, Any]) -> dict[int | None, str]:
    """What is wrong with the node (None) and with each device; empty where nothing is."""
    told = body.get("health")
    if not isinstance(told, dict):
        return {None: ""}
    reasons: dict[int | None, str] = {None: _reason(told)}
    for device in _list(told, "devices", _MOST_DEVICES):
        if isinstance(device, dict):
            reasons[_whole(device, "index")] = _reason(device)
    return reasons


def _figures(body: Mapping[str, Any]) -> dict[int, Figures]:
    """The figures of each device that are known."""
    told = body.get("health")
    listed = _list(told, "devices", _MOST_DEVICES) if isinstance(told, dict) else []
    return {
        _whole(device, "index"): {
            name: float(value)
            for name in FIGURES
            if isinstance(value := device.get(name), int | float) and abs(value) < 1 << 62
        }
        for device in listed
        if isinstance(device, dict)
    }


def _reason(told: Mapping[str, Any]) -> str:
    if told.get("healthy") is not False:
        return ""
    return str(told.get("reason") or "unhealthy")[:400]


def _text(record: Mapping[str, Any], name: str, most: int) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
        raise MalformedRequest(f"{name} is missing, too long, or not text")
    return value


def _whole(record: Mapping[str, Any], name: str) -> int:
    value = record.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise MalformedRequest(f"{name} is missing, or not a whole number")
    return value


def _list(record: Mapping[str, Any], name: str, most: int) -> list[Any]:
    value = record.get(name, [])
    if not isinstance(value, list) or len(value) > most:
        raise MalformedRequest(f"{name} is not a list of at most {most}")
    return value
