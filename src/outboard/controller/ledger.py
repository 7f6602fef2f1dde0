"""The ledger in memory: nodes, what is granted of their devices, sessions.

SPDX-License-Identifier: Apache-2.0

Its invariant is the counters': 0 <= granted <= capacity for every device, checked by every change.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Protocol

from outboard.model.node import Device, Node
from outboard.model.request import Allocation, GrantedDevice, Lease, Request, Session, SessionState
from outboard.scheduler.placement import DeviceState


class Accounts(Protocol):
    """Who writes down what was held, to be asked for when the ledger has forgotten it."""

    def begin(self, session: Session, capacities_bytes: Sequence[int]) -> None:
        """A session holds its devices, which have so much each, from now on."""

    def end(self, session: Session) -> None:
        """A session holds nothing more."""


class Ledger:
    """Everything that the controller knows. Methods change it completely or not at all."""

    def __init__(self, nodes: Iterable[Node], accounts: Accounts) -> None:
        self._accounts = accounts
        self.nodes = {node.name: node for node in nodes}
        self.sessions: dict[str, Session] = {}
        self._granted_bytes: dict[tuple[str, int], int] = {
            (node.name, device.index): 0 for node in self.nodes.values() for device in node.devices
        }

    def device(self, granted: GrantedDevice) -> Device:
        """The device behind a granted one."""
        devices = self.nodes[granted.node].devices
        return next(device for device in devices if device.index == granted.index)

    def granted_bytes(self, node: str, index: int) -> int:
        return self._granted_bytes[node, index]

    def device_states(self) -> list[DeviceState]:
        """The scheduler's view."""
        return [
            DeviceState(
                node=node.name,
                index=device.index,
                name=device.name,
                capacity_bytes=device.capacity_bytes,
                granted_bytes=self._granted_bytes[node.name, device.index],
                minimum_share_bytes=device.minimum_share_bytes,
            )
            for node in self.nodes.values()
            for device in node.devices
        ]

    def grant(
        self, request: Request, devices: tuple[GrantedDevice, ...], now_unix: float
    ) -> Session:
        """Record an allocation and its session."""
        counters = dict(self._granted_bytes)
        for device in devices:
            counters[device.node, device.index] += device.share_bytes
            if counters[device.node, device.index] > self.device(device).capacity_bytes:
                raise AssertionError(f"device {device.index} of {device.node} would be overgranted")
        self._granted_bytes = counters
        allocation = Allocation(f"a-{os.urandom(4).hex()}", request.id, 1, devices)
        session_id = f"s-{os.urandom(4).hex()}"
        lease = Lease(held=True, holder_sha256=request.holder_sha256)
        session = Session(session_id, request, allocation, lease, SessionState.ACTIVE, now_unix)
        self.sessions[session_id] = session
        self._accounts.begin(session, [self.device(device).capacity_bytes for device in devices])
        return session

    def forget(self, session: Session) -> None:
        """Take back the bytes of a session whose last worker is gone."""
        counters = dict(self._granted_bytes)
        for device in session.allocation.devices:
            counters[device.node, device.index] -= device.share_bytes
            if counters[device.node, device.index] < 0:
                raise AssertionError(f"device {device.index} of {device.node} freed twice")
        del self.sessions[session.id]
        self._granted_bytes = counters
        self._accounts.end(session)

    def session_of_request(self, request_id: str) -> Session | None:
        """The active session that this request was granted before."""
        for session in self.sessions.values():
            if session.request.id == request_id and session.state is SessionState.ACTIVE:
                return session
        return None
