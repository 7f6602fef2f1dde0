"""The pool as the scheduler sees it: kept in memory, brought up to date from the change table.

SPDX-License-Identifier: Apache-2.0

It may be behind the ledger. Nothing depends on its being right: a grant is judged again by the
ledger's counters, and who was wrong reads again.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from outboard.ledger.changes import Change
from outboard.ledger.nodes import epoch_base
from outboard.ledger.requests import Terms, waiting_requests
from outboard.ledger.rows import any_of, portions
from outboard.ledger.schema import allocations, devices, grants, nodes, requests, sessions, users
from outboard.ledger.statements import Statement
from outboard.ledger.transaction import Transaction
from outboard.model.request import GrantedDevice, Request
from outboard.scheduler.fairness import HALF_LIFE_US, FairShare
from outboard.scheduler.placement import Busy, DeviceState, Key, Placement, Rules, place
from outboard.scheduler.queue import Running, Waiting
from outboard.scheduler.shortlist import Shortlist

_REMEMBERED_US = 5 * HALF_LIFE_US
_MOST_SEEN = 16
_LONGEST_SEEN = 120


@dataclass(slots=True)
class Picture:
    """What one reading of the ledger found; `complete` replaces all that was known of devices, and
    a picture of some servers (`closed`) what was known of theirs.

    `closed` says by server why it takes nothing new, if it does not. `granted` is the bytes that
    are granted of devices of which nothing else has changed; what waits, or runs, no more is None.
    """

    complete: bool
    now_us: int
    devices: dict[Key, DeviceState] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    granted: dict[Key, int] = field(default_factory=dict)
    waiting: dict[str, Waiting | None] = field(default_factory=dict)
    running: dict[str, tuple[str, Running] | None] = field(default_factory=dict)
    fair: FairShare | None = None
    weights: dict[str, int] = field(default_factory=dict)


class Image:
    """The newest picture, with what this controller is granting at this moment.

    Belongs to the event loop; pictures are read in other threads.
    """

    def __init__(self, fair: FairShare | None = None) -> None:
        self.devices: dict[Key, DeviceState] = {}
        self.closed: dict[str, str] = {}
        self.waiting: dict[str, Waiting] = {}
        self.running: dict[str, tuple[str, Running]] = {}
        self.fair = fair or FairShare()
        self._pending: dict[Key, int] = {}
        self._current: dict[Key, DeviceState] = {}
        self._shortlist = Shortlist()
        self._of_server: dict[str, set[Key]] = {}
        self._shut: dict[Key, str] = {}

    def take_in(self, picture: Picture) -> None:
        """Know what the picture shows."""
        if picture.complete:
            self.devices = picture.devices
            self.closed = picture.closed
            self._current = {key: self._with_pending(key) for key in self.devices}
            self._shortlist = Shortlist(self._current.values())
            self._of_server = _by_server(self.devices)
            self._shut = {key: one.closed for key, one in self.devices.items() if one.closed}
        else:
            self._take_servers(picture)
        for key, granted_bytes in picture.granted.items():
            if key in self.devices and key not in picture.devices:
                self.devices[key] = replace(self.devices[key], granted_bytes=granted_bytes)
                self._refresh(key)
        if picture.fair is not None:
            self.fair = picture.fair
        for name, waiting in picture.waiting.items():
            if waiting is None:
                self.waiting.pop(name, None)
            else:
                self.waiting[name] = waiting
        for name, running in picture.running.items():
            self._take_running(name, running, picture.now_us)
        if picture.weights:
            self.fair.weights = picture.weights

    def _take_servers(self, picture: Picture) -> None:
        """Know what the picture shows of some servers, and no more of what they have no more."""
        self.closed.update(picture.closed)
        shown = _by_server(picture.devices)
        for server in picture.closed:
            for key in self._of_server.pop(server, set()) - picture.devices.keys():
                del self.devices[key], self._current[key]
                self._shortlist.drop(key)
                self._shut.pop(key, None)
        self._of_server.update(shown)
        for key, device in picture.devices.items():
            if self.devices.get(key) != device:
                self.devices[key] = device
                self._refresh(key)
                self._shut.pop(key, None)
                if device.closed:
                    self._shut[key] = device.closed

    def seen(self, avoided: Sequence[Key] = ()) -> dict[str, object]:
        """What a grant is recorded with: what nobody could read from the ledger afterwards."""
        found: dict[str, object] = {}
        if self._shut:
            first = itertools.islice(self._shut.items(), _MOST_SEEN)
            found["closed"] = [[*key, why[:_LONGEST_SEEN]] for key, why in first]
        if len(self._shut) > _MOST_SEEN:
            found["more_closed"] = len(self._shut) - _MOST_SEEN
        if avoided:
            found["kept"] = [list(key) for key in avoided]
        return found

    def states(self) -> list[DeviceState]:
        """Every device, with what is being granted counted as granted."""
        return list(self._current.values())

    def choose(self, request: Request) -> Placement | Busy:
        """Devices for one request, as `place` chooses them."""
        rules = Rules.of(request)
        few = self._shortlist.candidates(request.gpus, request.share, rules)
        if few:
            outcome = place(few, request.gpus, request.share, rules)
            if isinstance(outcome, Placement):
                return outcome
        return place(self.states(), request.gpus, request.share, rules)

    def hold(self, chosen: Iterable[GrantedDevice], sign: int = 1) -> None:
        """Count bytes as granted while a transaction grants them; with -1, no more."""
        for device in chosen:
            key = device.node, device.index
            amount = self._pending.get(key, 0) + sign * device.share_bytes
            if amount:
                self._pending[key] = amount
            else:
                self._pending.pop(key, None)
            if key in self.devices:
                self._refresh(key)

    def _refresh(self, key: Key) -> None:
        self._current[key] = self._with_pending(key)
        self._shortlist.put(self._current[key])

    def _with_pending(self, key: Key) -> DeviceState:
        device = self.devices[key]
        more_bytes = self._pending.get(key, 0)
        if not more_bytes:
            return device
        return replace(device, granted_bytes=device.granted_bytes + more_bytes)

    def gpus(self, chosen: Iterable[GrantedDevice]) -> float:
        """How many GPUs some shares are together."""
        total = 0.0
        for one in chosen:
            device = self.devices.get((one.node, one.index))
            if device is not None:
                total += one.share_bytes / max(1, device.capacity_bytes)
        return total

    def _take_running(self, name: str, found: tuple[str, Running] | None, now_us: int) -> None:
        before = self.running.pop(name, None)
        if before is not None:
            user, one = before
            self.fair.end(user, self.gpus(one.devices), now_us)
        if found is not None:
            self.running[name] = found
            user, one = found
            self.fair.begin(user, self.gpus(one.devices), now_us)


def _by_server(keys: Iterable[Key]) -> dict[str, set[Key]]:
    found: dict[str, set[Key]] = {}
    for key in keys:
        found.setdefault(key[0], set()).add(key)
    return found


def read_all(tx: Transaction, terms: Terms) -> Picture:
    """Everything, for a controller that starts."""
    picture = Picture(complete=True, now_us=tx.now_us)
    _read_devices(tx, terms, None, picture)
    picture.waiting = {
        ask.request.id: Waiting(ask.request, ask.created_us) for ask in waiting_requests(tx)
    }
    picture.running = dict(_running(tx.connection.execute(_RUNNING)))
    picture.fair = _fair(tx, picture.devices)
    picture.weights = picture.fair.weights
    return picture


def read_devices(tx: Transaction, terms: Terms, names: Collection[str] | None = None) -> Picture:
    """All devices and their servers, or those of some servers."""
    picture = Picture(complete=names is None, now_us=tx.now_us)
    _read_devices(tx, terms, None if names is None else sorted(names), picture)
    return picture


def read_closed(tx: Transaction, terms: Terms) -> dict[str, str]:
    """Why servers take nothing new, by name: from time to time, since silence leaves no change."""
    base = epoch_base(tx)
    return {row.name: _closed(row, tx.now_us, base, terms) for row in tx.rows(_SERVERS)}


def read_changed(
    tx: Transaction, terms: Terms, changed: Sequence[Change], servers: Collection[str] = ()
) -> Picture:
    """What the changes are about, and these servers."""
    picture = Picture(complete=False, now_us=tx.now_us)
    subjects: dict[str, set[str]] = {"node": set(servers)} if servers else {}
    for change in changed:
        subjects.setdefault(change.kind, set()).add(change.subject)
    if "ledger" in subjects:
        picture = read_devices(tx, terms)
    elif "node" in subjects:
        _read_devices(tx, terms, sorted(subjects["node"]), picture)
    for part in portions(subjects.get("device", ())):
        keys = [(node, int(index)) for node, _, index in (one.rpartition("/") for one in part)]
        found = tx.rows(_GRANTED_BYTES, keys=keys)
        picture.granted.update({(row.node, row.idx): row.granted_bytes for row in found})
    for part in portions(subjects.get("request", ())):
        picture.waiting.update(dict.fromkeys(part))
        for ask in waiting_requests(tx, part):
            picture.waiting[ask.request.id] = Waiting(ask.request, ask.created_us)
    for part in portions(subjects.get("session", ())):
        for row in tx.rows(_ALLOCATIONS, sessions=part):
            subjects.setdefault("allocation", set()).add(str(row.allocation))
    for part in portions(subjects.get("allocation", ())):
        picture.running.update(dict.fromkeys(part))
        picture.running.update(_running(tx.rows(_RUNNING_OF, allocations=part)))
    if "user" in subjects:
        picture.weights = _weights(tx)
    return picture


_SERVERS = Statement(
    sa.select(
        nodes.c.name,
        nodes.c.state,
        nodes.c.state_reason,
        nodes.c.healthy,
        nodes.c.health_reason,
        nodes.c.reconciled_base,
        nodes.c.seen_us,
    )
)


def _read_devices(tx: Transaction, terms: Terms, names: list[str] | None, picture: Picture) -> None:
    listed = [column for column in nodes.c if column.name not in ("key_sealed", "telemetry")]
    of_nodes, of_devices = sa.select(*listed), sa.select(devices)
    if names is not None:
        of_nodes = of_nodes.where(nodes.c.name.in_(names))
        of_devices = of_devices.where(devices.c.node.in_(names))
    base = epoch_base(tx)
    servers = {row.name: row for row in tx.connection.execute(of_nodes)}
    closed = {name: _closed(row, tx.now_us, base, terms) for name, row in servers.items()}
    facts = {name: _facts(row) for name, row in servers.items()}
    picture.closed = closed
    for row in tx.connection.execute(of_devices.where(devices.c.state != "removed")):
        server = servers[row.node]
        picture.devices[row.node, row.idx] = DeviceState(
            node=row.node,
            index=row.idx,
            name=row.name,
            capacity_bytes=row.capacity_bytes,
            granted_bytes=row.granted_bytes,
            minimum_share_bytes=row.minimum_share_bytes,
            pool=server.pool,
            closed=closed[row.node] or _device_closed(row),
            facts={
                **facts[row.node],
                "device.id": row.uuid,
                "device.name": row.name,
                "device.memory": str(row.total_bytes >> 20),
            },
        )


def _closed(row: Any, now_us: int, base: int, terms: Terms) -> str:
    """Why a server takes nothing new."""
    if row.state != "ready":
        return f"{row.state}: {row.state_reason}" if row.state_reason else str(row.state)
    if not row.healthy:
        return f"unhealthy: {row.health_reason}"
    if row.reconciled_base < base:
        return "its agent has not been heard of since the ledger was restored"
    if terms.silent_us is not None and row.seen_us < now_us - terms.silent_us:
        return "its agent is silent"
    return ""


def _device_closed(row: sa.Row[tuple[object, ...]]) -> str:
    if row.state != "ready":
        return f"{row.state}: {row.state_reason}" if row.state_reason else str(row.state)
    return "" if row.healthy else f"unhealthy: {row.health_reason}"


def _facts(row: sa.Row[tuple[object, ...]]) -> dict[str, str]:
    labels = row.labels if isinstance(row.labels, dict) else {}
    facts = {
        "server.name": row.name,
        "server.addr": row.address.rpartition(":")[0],
        "server.hostname": row.hostname or row.name,
        "server.cuda-version": f"{row.driver_version // 1000}.{row.driver_version % 1000 // 10}",
        **{f"label.{name}": str(value) for name, value in labels.items()},
    }
    if row.driver_release:
        facts["server.driver-version"] = row.driver_release
    return facts


_GRANTED_BYTES = Statement(
    sa.select(devices.c.node, devices.c.idx, devices.c.granted_bytes).where(
        any_of("keys", devices.c.node, devices.c.idx)
    ),
    "keys",
)
_ALLOCATIONS = Statement(
    sa.select(sessions.c.allocation).where(
        any_of("sessions", sessions.c.id), sessions.c.allocation.is_not(None)
    ),
    "sessions",
)
# What has not ended, with when it will, where its user said so or a limit does.
_RUNNING = (
    sa.select(
        grants.c.allocation,
        grants.c.node,
        grants.c.idx,
        grants.c.share_bytes,
        allocations.c.user_name,
        allocations.c.started_us,
        allocations.c.end_by_us,
        requests.c.wanted_us,
    )
    .join(allocations, allocations.c.id == grants.c.allocation)
    .join(requests, requests.c.id == allocations.c.request)
    .where(grants.c.ended_us.is_(None))
    .order_by(grants.c.allocation, grants.c.ordinal)
)
_RUNNING_OF = Statement(_RUNNING.where(any_of("allocations", grants.c.allocation)), "allocations")


def _running(rows: Iterable[Any]) -> Iterator[tuple[str, tuple[str, Running]]]:
    """(allocation, (user, what it holds)) of the rows of `_RUNNING`."""
    for name, of_one in itertools.groupby(rows, key=lambda row: str(row.allocation)):
        held = list(of_one)
        first = held[0]
        ends = [first.end_by_us] if first.end_by_us is not None else []
        ends += [first.started_us + first.wanted_us] if first.wanted_us is not None else []
        chosen = tuple(GrantedDevice(row.node, row.idx, row.share_bytes) for row in held)
        yield name, (first.user_name, Running(chosen, min(ends, default=None)))


def _weights(tx: Transaction) -> dict[str, int]:
    return {
        row.name: row.weight
        for row in tx.connection.execute(sa.select(users.c.name, users.c.weight))
    }


def _fair(tx: Transaction, known: dict[Key, DeviceState]) -> FairShare:
    """Lately's use, from the grants that have ended; what runs is added as it is taken in."""
    fair = FairShare(_weights(tx))
    statement = (
        sa.select(grants)
        .where(grants.c.ended_us > tx.now_us - _REMEMBERED_US)
        .order_by(grants.c.started_us)
    )
    for row in tx.connection.execute(statement):
        device = known.get((row.node, row.idx))
        if device is not None:
            gpus = row.share_bytes / max(1, device.capacity_bytes)
            fair.remember(row.user_name, gpus, row.started_us, row.ended_us, tx.now_us)
    return fair
