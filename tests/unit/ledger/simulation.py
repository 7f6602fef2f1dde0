"""Random operations on a ledger beside the reference, with a controller that crashes at any write.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import random
from collections.abc import Callable

import sqlalchemy as sa

from outboard.errors import OutboardError
from outboard.ledger import accounting, allocations, limits, nodes, requests, subjects, tokens
from outboard.ledger.grants import Granted, Lost, granted_of
from outboard.ledger.requests import Terms
from outboard.ledger.schema import (
    allocations as allocations_table,
)
from outboard.ledger.schema import (
    audit,
    controllers,
    devices,
    grants,
    leases,
    limit_use,
    sessions,
)
from outboard.ledger.schema import (
    requests as requests_table,
)
from outboard.ledger.transaction import Transaction
from outboard.model.node import Device, Node
from outboard.model.request import GrantedDevice, Request, Share
from tests.unit.ledger.crashing import COMPANIES, Crashed, CrashingDatabase
from tests.unit.ledger.reference import (
    ModelAllocation,
    ModelDevice,
    ModelNode,
    ModelRequest,
    Reference,
)

SECOND = 1_000_000
MIB = 1 << 20
USERS = ("ann", "bob", "cem")
HOSTS = (None, "h1", "h2")
GROUPS = ("g1", "g2")
TERMS = Terms()


def node(name: str, capacities: list[int], salt: str = "") -> Node:
    made = tuple(
        Device(i, f"GPU-{name}-{i}{salt}", "GPU", c + MIB, c, MIB, MIB, "8.0", "0:0", 8)
        for i, c in enumerate(capacities)
    )
    return Node(name, f"{name}:1", "none", "driver", 13000, "p", True, made)


class Simulation:
    """One seed's run. `step` does one operation; every step ends with a check of everything."""

    def __init__(self, url: str, seed: int, accompanied: float = 0.2) -> None:
        """So many of the commits have more in them than one operation."""
        self.url, self.random = url, random.Random(seed)
        self.dice = random.Random(~seed)
        self.accompanied = accompanied
        self.now_us = 1_700_000_000 * SECOND
        self.model = Reference(TERMS)
        self.crash_at = 0
        self.crashed = False
        self.database = self._open()
        self._setup()
        self.operations: dict[str, Callable[[], None]] = {
            name.removeprefix("do_"): getattr(self, name)
            for name in dir(self)
            if name.startswith("do_")
        }
        weights = {
            "submit": 6,
            "submit_for": 6,
            "grant": 9,
            "renew": 3,
            "advance": 4,
            "begin_end": 4,
            "release": 8,
        }
        self.weights = [weights.get(name, 1) for name in self.operations]

    def close(self) -> None:
        self.database.close()

    def step(self, crash_at: int = 0) -> str:
        """One random operation, crashed at that write if it has so many; returns its name."""
        name = self.random.choices(list(self.operations), self.weights)[0]
        self.run(name, crash_at)
        return name

    def run(self, name: str, crash_at: int = 0) -> bool:
        """One operation by name; returns whether the crash happened."""
        self.crash_at, self.crashed = crash_at, False
        self.operations[name]()
        self.crash_at = 0
        self.check()
        return self.crashed

    def write(self, work: Callable[[Transaction], object]) -> object:
        """Run a transaction; after a crash a new controller opens the ledger, the client repeats.

        Expected refusals come back as the name of their class.
        """
        self.database.countdown, self.crash_at = self.crash_at, 0
        company = self.dice.choice(COMPANIES) if self.dice.random() < self.accompanied else ()
        try:
            return self.database.write_all([work, *company])[0].result()
        except Crashed:
            self.crashed = True
            self.database.close()
            self.database = self._open()
            return self.write(work)
        except OutboardError as error:
            return type(error).__name__
        finally:
            self.database.countdown = 0

    def _open(self) -> CrashingDatabase:
        return CrashingDatabase(self.url, lambda _connection: self.now_us)

    def _setup(self) -> None:
        for name in ("n1", "n2"):
            self._register(node(name, [self.random.randrange(4, 40) * MIB for _ in range(3)]))

        def people(tx: Transaction) -> None:
            for user in USERS:
                subjects.ensure_user(tx, user)
            for host in HOSTS:
                if host:
                    subjects.ensure_host(tx, host)

        self.write(people)

    def calm(self) -> None:
        """Let the next grants succeed: nodes open and heard of, no limits, room, a request."""
        for name, one in self.model.nodes.items():
            self.write(lambda tx, name=name: nodes.set_node_state(tx, name, "ready", ""))  # type: ignore[misc]
            one.state = "ready"
            self.write(lambda tx, name=name: nodes.reconcile(tx, name, {}))  # type: ignore[misc]
            one.reconciled_base = self.model.base
        self.do_heartbeat()
        for subject, kind in list(self.model.limits):
            self.write(lambda tx, s=subject, k=kind: limits.set_limit(tx, s, k, None))  # type: ignore[misc]
            del self.model.limits[subject, kind]
        for name in [n for n, one in self.model.allocations.items() if one.state != "ended"][:-2]:
            self.write(lambda tx, name=name: allocations.begin_end(tx, name, "ann", "calm"))  # type: ignore[misc]
            self.model.allocations[name].state = "ending"
            self.write(lambda tx, name=name: allocations.release(tx, name))  # type: ignore[misc]
            self.model.release(name, None, self.now_us)
        self.do_submit()
        self.check()

    # --- operations ------------------------------------------------------------------------------

    def do_advance(self) -> None:
        self.now_us += self.random.choice((1, SECOND, 20 * SECOND, 100 * SECOND))

    def do_submit(self) -> None:
        request, refused = self._new_request()
        outcome = self.write(lambda tx: requests.submit(tx, request))
        if refused:
            assert outcome == "LimitReached", outcome
            return
        assert isinstance(outcome, requests.Ask), outcome
        self._note_request(request)

    def do_submit_for(self) -> None:
        """What a controller does: a new request and its grant in one transaction."""
        request, refused = self._new_request()
        chosen = self._choice()
        outcome = self.write(lambda tx: requests.submit_for(tx, request, chosen, TERMS))
        if refused:
            assert outcome == "LimitReached", outcome
            return
        self._note_request(request)
        expected = self.model.grant(request.id, chosen, self.now_us)
        if self.crashed and isinstance(outcome, requests.Ask) and outcome.state == "granted":
            # It was done before the crash; who asks again learns of it.
            outcome = self.database.read(lambda tx: granted_of(tx, request.id))
        if expected == "granted":
            assert isinstance(outcome, Granted), outcome
            self._note_grant(request.id, outcome, chosen)
        elif expected == "Lost":
            assert isinstance(outcome, Lost), outcome
        else:
            assert expected == "LimitReached", expected
            assert isinstance(outcome, requests.Ask) and outcome.state == "waiting", outcome

    def _new_request(self) -> tuple[Request, bool]:
        """A request, and whether a limit forbids it at all."""
        request = Request(
            id=f"{self.random.getrandbits(128):032x}",
            gpus=self.random.randrange(1, 4),
            share=Share(amount_bytes=self.random.randrange(1, 20) * MIB),
            wait_s=self.random.choice((None, 10.0, 600.0)),
            uid=1,
            pid=1,
            program="p",
            user=self.random.choice(USERS),
            host=self.random.choice(HOSTS),
        )
        subject = limits.subjects_of(
            request.user, self.model.groups.get(request.user, []), request.host
        )
        values = [self.model.limit(one, "gpus") for one in subject]
        return request, any(value is not None and request.gpus > value for value in values)

    def _note_request(self, request: Request) -> None:
        wait_s = request.wait_s
        until_us = None if wait_s is None else self.now_us + int(wait_s * SECOND)
        self.model.requests[request.id] = ModelRequest(
            request.user, request.host, self.now_us, until_us
        )

    def do_submit_again(self) -> None:
        if self.model.requests:
            identity = self.random.choice(list(self.model.requests))
            found = self.database.read(lambda tx: requests.find_request(tx, identity))
            outcome = self.write(lambda tx: requests.submit(tx, found.request))
            assert outcome == found

    def do_grant(self) -> None:
        waiting = [name for name, one in self.model.requests.items() if one.state == "waiting"]
        if waiting:
            self._grant(self.random.choice(waiting))

    def do_grant_again(self) -> None:
        if self.model.requests:
            self._grant(self.random.choice(list(self.model.requests)))

    def _grant(self, identity: str) -> None:
        chosen = self._choice()
        expected = self.model.grant(identity, chosen, self.now_us)
        outcome = self.write(lambda tx: requests.grant(tx, identity, chosen, TERMS))
        if expected == "again":
            assert isinstance(outcome, Granted), outcome
            assert self.model.allocations[outcome.allocation].request == identity
        elif expected == "granted":
            assert isinstance(outcome, Granted), outcome
            self._note_grant(identity, outcome, chosen)
        elif expected == "Lost":
            assert isinstance(outcome, Lost), outcome
        else:
            assert outcome == expected, outcome

    def _choice(self) -> list[GrantedDevice]:
        keys = self.random.sample(list(self.model.devices), self.random.randrange(1, 4))
        return [GrantedDevice(*key, self.random.randrange(1, 14) * MIB) for key in keys]

    def _note_grant(self, identity: str, made: Granted, chosen: list[GrantedDevice]) -> None:
        asked = self.model.requests[identity]
        asked.state = "granted"
        assert made.devices == tuple(chosen)
        held = {(one.node, one.index): one.share_bytes for one in chosen}
        self.model.allocations[made.allocation] = ModelAllocation(
            identity,
            made.session,
            asked.user,
            limits.subjects_of(asked.user, self.model.groups.get(asked.user, []), asked.host),
            self.model.base + 1,
            self.now_us + TERMS.pickup_us,
            held,
            started_us=dict.fromkeys(held, self.now_us),
        )

    def do_renew(self) -> None:
        known = list(self.model.allocations)
        held = {name for name in known if self.random.random() < 0.4}
        programs = {name: self.random.randrange(3) for name in known if self.random.random() < 0.2}
        outcome = self.write(lambda tx: allocations.renew(tx, held, programs, TERMS))
        alive = {n for n in held | set(programs) if self.model.allocations[n].state == "active"}
        assert outcome == alive
        for name in alive & (held | {name for name, count in programs.items() if count}):
            self.model.allocations[name].expires_us = self.now_us + TERMS.lease_us
            self.model.allocations[name].picked_up = True

    def do_expire(self) -> None:
        seeming = self.database.read(allocations.expired)
        over = [
            name
            for name, one in self.model.allocations.items()
            if one.state == "active" and one.expires_us < self.now_us
        ]
        assert sorted(seeming) == sorted(over)
        if self.random.random() < 0.5:
            seeming += [n for n, one in self.model.allocations.items() if one.state == "active"]
        for name in dict.fromkeys(seeming):
            done = self.write(lambda tx, name=name: allocations.end_expired(tx, name))  # type: ignore[misc]
            # The repeated call of a client whose answer was lost finds it done already.
            assert done is (name in over) or self.crashed
            if name in over:
                self.model.allocations[name].state = "ending"

    def do_begin_end(self) -> None:
        if self.model.allocations:
            name = self.random.choice(list(self.model.allocations))
            one = self.model.allocations[name]
            done = self.write(lambda tx: allocations.begin_end(tx, name, "ann", "released"))
            assert done is (one.state == "active") or self.crashed
            one.state = "ending" if one.state == "active" else one.state

    def do_release(self) -> None:
        names = [n for n, one in self.model.allocations.items() if one.state == "ending"]
        if self.random.random() < 0.2:
            names = list(self.model.allocations)
        if names:
            name, where = self.random.choice(names), self.random.choice((None, "n1", "n2"))
            outcome = self.write(lambda tx: allocations.release(tx, name, where))
            expected = self.model.release(name, where, self.now_us)
            assert outcome is (expected == "over") or self.crashed

    def do_take_over(self) -> None:
        active = [n for n, one in self.model.allocations.items() if one.state == "active"]
        if active:
            name = self.random.choice(active)
            one, after = self.model.allocations[name], f"{self.random.getrandbits(64):x}"
            before = self.random.choice((one.holder, "wrong"))
            outcome = self.write(lambda tx: allocations.take_over(tx, name, after, before, TERMS))
            if before != one.holder:
                assert outcome == "Stale", outcome
                return
            assert isinstance(outcome, Granted), outcome
            one.epoch, one.holder, one.picked_up = one.epoch + 1, after, True
            one.expires_us = self.now_us + TERMS.lease_us

    def do_resize(self) -> None:
        active = [n for n, one in self.model.allocations.items() if one.state == "active"]
        if not active:
            return
        name = self.random.choice(active)
        one = self.model.allocations[name]
        shares = [self.random.randrange(1, 20) * MIB for _ in one.devices]
        wanted = dict(zip(one.devices, shares, strict=True))
        more = sum(shares) - sum(one.devices.values())
        same = wanted == one.devices
        refused = self.model.refused(one.subjects, {"gpus": 0, "bytes": more, "sessions": 0})
        fits = all(
            self.model.granted_bytes(key) - one.devices[key] + share
            <= self.model.devices[key].capacity_bytes
            for key, share in wanted.items()
        )
        outcome = self.write(lambda tx: allocations.resize(tx, name, shares))
        if same:
            assert isinstance(outcome, Granted), outcome
        elif refused:
            assert outcome == "LimitReached", outcome
        elif not fits:
            assert isinstance(outcome, Lost), outcome
        else:
            assert isinstance(outcome, Granted), outcome
            for key in list(one.devices):
                self.model.end_span(one, key, self.now_us)
            one.devices, one.epoch = wanted, one.epoch + 1
            one.started_us = dict.fromkeys(wanted, self.now_us)

    def do_node_state(self) -> None:
        name = self.random.choice(list(self.model.nodes))
        state = self.random.choice(("ready", "ready", "cordoned", "draining"))
        self.write(lambda tx: nodes.set_node_state(tx, name, state, "why"))
        self.model.nodes[name].state = state

    def do_device_state(self) -> None:
        key = self.random.choice(list(self.model.devices))
        state = self.random.choice(("ready", "ready", "cordoned"))
        self.write(lambda tx: nodes.set_device_state(tx, *key, state, "why"))
        self.model.devices[key].state = state

    def do_heartbeat(self) -> None:
        self.write(lambda tx: nodes.heartbeats(tx, ["n1", "n2"]))
        for one in self.model.nodes.values():
            one.seen_us = self.now_us

    def do_register(self) -> None:
        name = self.random.choice(("n1", "n2"))
        capacities = [
            self.random.choice((one.capacity_bytes, self.random.randrange(4, 40) * MIB))
            for key, one in self.model.devices.items()
            if key[0] == name
        ]
        self._register(node(name, capacities, self.random.choice(("", "", "x"))))

    def _register(self, told: Node) -> None:
        self.write(lambda tx: nodes.register_node(tx, told))
        known = self.model.nodes.setdefault(told.name, ModelNode(self.now_us, self.model.base))
        known.seen_us = self.now_us
        for device in told.devices:
            key = (told.name, device.index)
            before = self.model.devices.get(key)
            granted = self.model.granted_bytes(key)
            if before is None:
                self.model.devices[key] = ModelDevice(device.uuid, device.capacity_bytes)
            elif granted and (before.uuid != device.uuid or device.capacity_bytes < granted):
                before.healthy = False
            else:
                before.uuid, before.capacity_bytes = device.uuid, device.capacity_bytes
                before.healthy = True

    def do_set_limit(self) -> None:
        subject = self.random.choice(
            [("user", "ann"), ("user", "*"), ("group", "g1"), ("group", "*"), ("host", "h1")]
        )
        kind = self.random.choice(limits.COUNTED)
        most = {"gpus": 8, "bytes": 60 * MIB, "sessions": 6}[kind]
        value = self.random.choice((None, self.random.randrange(most + 1)))
        self.write(lambda tx: limits.set_limit(tx, subject, kind, value))
        self.model.limits.pop((subject, kind), None)
        if value is not None:
            self.model.limits[subject, kind] = value

    def do_set_groups(self) -> None:
        user = self.random.choice(USERS)
        chosen = self.random.choice(([], ["g1"], ["g1", "g2"]))
        self.write(lambda tx: subjects.set_groups(tx, user, chosen))
        self.model.groups[user] = chosen

    def do_signs(self) -> None:
        chosen = [name for name in self.model.requests if self.random.random() < 0.3]
        self.write(lambda tx: requests.signs(tx, chosen))
        for name in chosen:
            one = self.model.requests[name]
            one.seen_us = self.now_us if one.state == "waiting" else one.seen_us

    def do_give_up(self) -> None:
        outcome = self.write(lambda tx: requests.give_up(tx, TERMS))
        gone = []
        for name, one in self.model.requests.items():
            if one.state == "waiting":
                silent = one.seen_us < self.now_us - TERMS.waiting_us
                late = one.wait_until_us is not None and one.wait_until_us < self.now_us
                if silent or late:
                    one.state = "lost" if silent else "timed_out"
                    gone.append(name)
        assert sorted(outcome) == sorted(gone) or self.crashed  # type: ignore[call-overload]

    def do_cancel(self) -> None:
        if self.model.requests:
            name = self.random.choice(list(self.model.requests))
            one = self.model.requests[name]
            done = self.write(lambda tx: requests.finish(tx, name, "cancelled", "left"))
            assert done is (one.state == "waiting") or self.crashed
            one.state = "cancelled" if one.state == "waiting" else one.state

    def do_restore(self) -> None:
        if self.random.random() < 0.8:
            return
        before = self.model.base
        outcome = self.write(lambda tx: allocations.restore(tx, "test", TERMS))
        assert isinstance(outcome, int)
        assert outcome > before
        self.model.base = outcome
        for one in self.model.allocations.values():
            if one.state != "ended":
                assert outcome + 1 > one.epoch
                one.epoch = outcome + 1
            if one.state == "active":
                one.expires_us = self.now_us + TERMS.lease_us

    def do_reconcile(self) -> None:
        name = self.random.choice(list(self.model.nodes))
        known = {
            allocation: one
            for allocation, one in self.model.allocations.items()
            if self.random.random() < 0.5
        }
        running = {allocation: one.epoch for allocation, one in known.items()} | {"a-other": 1}
        outcome = self.write(lambda tx: nodes.reconcile(tx, name, running))
        ends = [
            allocation
            for allocation, one in known.items()
            if one.state != "active" or not any(key[0] == name for key in one.devices)
        ]
        assert outcome == sorted([*ends, "a-other"])
        self.model.nodes[name].reconciled_base = self.model.base
        self.model.nodes[name].seen_us = self.now_us

    def do_token(self) -> None:
        text = self.write(lambda tx: tokens.create_token(tx, ("user", "ann"), ["use"], uses=1))
        assert isinstance(text, str)
        used = self.write(lambda tx: tokens.use_token(tx, text))
        assert isinstance(used, tokens.Token) or self.crashed
        assert self.write(lambda tx: tokens.use_token(tx, text)) == "Unauthenticated"
        self.write(lambda tx: tokens.revoke_token(tx, text.split("_")[1]))

    # --- checks ----------------------------------------------------------------------------------

    def check(self) -> None:
        """The invariants by SQL, and every live row against the reference."""
        self.database.read(self._check)

    def _check(self, tx: Transaction) -> None:
        assert not tx.connection.execute(sa.select(controllers)).all()
        live: dict[tuple[str, int], int] = {}
        mine: dict[str, dict[tuple[str, int], int]] = {}
        rows = tx.connection.execute(sa.select(grants).where(grants.c.ended_us.is_(None)))
        for row in rows.all():
            key = (row.node, row.idx)
            live[key] = live.get(key, 0) + row.share_bytes
            assert key not in mine.setdefault(row.allocation, {}), "a device twice"
            mine[row.allocation][key] = row.share_bytes
        for row in tx.connection.execute(sa.select(devices)):
            key = (row.node, row.idx)
            assert live.pop(key, 0) == row.granted_bytes == self.model.granted_bytes(key)
            assert 0 <= row.granted_bytes <= row.capacity_bytes
            expected = self.model.devices[key]
            assert (row.capacity_bytes, row.healthy) == (expected.capacity_bytes, expected.healthy)
        assert not live
        held = {name: one for name, one in self.model.allocations.items() if one.devices}
        assert mine == {name: one.devices for name, one in held.items()}
        for row in tx.connection.execute(sa.select(limit_use)):
            subject = (row.subject_kind, row.subject)
            assert row.used == self.model.used(subject)[row.kind], (subject, row.kind)
            value = self.model.limit(subject, row.kind)
            assert row.maximum == (None if value is None else max(value, row.used))
        active = {n: one for n, one in self.model.allocations.items() if one.state == "active"}
        found = {row.allocation: row for row in tx.connection.execute(sa.select(leases))}
        assert set(found) == set(active)
        for name, one in active.items():
            assert (found[name].expires_us, found[name].picked_up, found[name].holder_sha256) == (
                one.expires_us,
                one.picked_up,
                one.holder,
            )

    def check_history(self) -> None:
        """What is too much to read after each step: all requests, allocations, accounts, audit."""
        self.database.read(self._check_history)

    def _check_history(self, tx: Transaction) -> None:
        found = {row.id: row for row in tx.connection.execute(sa.select(allocations_table))}
        assert {name: (row.request, row.state, row.epoch) for name, row in found.items()} == {
            name: (one.request, one.state, one.epoch)
            for name, one in self.model.allocations.items()
        }
        states = {row.id: row.state for row in tx.connection.execute(sa.select(requests_table))}
        assert states == {name: one.state for name, one in self.model.requests.items()}
        ids = tx.connection.execute(sa.select(sessions.c.id, sessions.c.state)).all()
        assert {row.id: row.state for row in ids} == {
            one.session: one.state for one in self.model.allocations.values()
        }
        granted = tx.connection.execute(
            sa.select(audit.c.subject).where(audit.c.action == "grant")
        ).scalars()
        assert sorted(granted) == sorted(row.id for row in ids)
        for _ in range(5):
            first, last = sorted(self.now_us - self.random.randrange(10**10) for _ in range(2))
            by_user = accounting.held(tx, first, last, ["user"])
            by_device = accounting.held(tx, first, last, ["device", "day"])
            assert sum(one.byte_us for one in by_user) == sum(one.byte_us for one in by_device)
            assert sum(o.gpu_ppm_us for o in by_user) == sum(o.gpu_ppm_us for o in by_device)
            expected = self.model.held(first, last, self.now_us)
            assert {one.keys[0]: one.byte_us for one in by_user} == expected
