"""Makes session files: a signed grant and a data-plane key for every server of an allocation.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from outboard.errors import NotFound, PoolError
from outboard.ledger.grants import Granted, describe
from outboard.ledger.transaction import Transaction
from outboard.model.grant import LIFETIME_S, Grant, Signer, data_plane_key, seal
from outboard.model.request import GrantedDevice
from outboard.model.session_file import SessionDevice, SessionFile, SessionNode
from outboard.pki.sealing import SealingKey


class GrantMaker:
    """One controller's signature, and the nodes' keys as the ledger keeps them."""

    def __init__(
        self,
        signer: Signer,
        sealing: SealingKey,
        lifetime_s: float = LIFETIME_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._signer = signer
        self._sealing = sealing
        self._lifetime_s = lifetime_s
        self._clock = clock

    def session_file(self, tx: Transaction, made: Granted) -> tuple[SessionFile, int]:
        """The content of a session's file with fresh grants, and when those expire (unix seconds).

        Raises `PoolError` if a server never enrolled.
        """
        expires_unix = int(self._clock() + self._lifetime_s)
        known = describe(tx, made)
        names = list(dict.fromkeys(device.node for device in made.devices))
        servers = {row.node: row for row in known.values() if row.key_sealed is not None}
        listed = []
        for name in names:
            if name not in servers:
                raise PoolError(
                    f"{name} has no key in the ledger", "enrol it again: outboard join TOKEN"
                )
            part = tuple(device for device in made.devices if device.node == name)
            grant = Grant(
                made.session, made.allocation, made.epoch, name, part, made.uid, expires_unix
            )
            text = seal(grant, self._signer)
            row = servers[name]
            key = data_plane_key(self._sealing.open(name, bytes(row.key_sealed)), text).hex()
            listed.append(SessionNode(name, row.address, row.tls, text, key))
        content = SessionFile(
            made.session,
            nodes=listed,
            devices=[
                _device(known.get((device.node, device.index)), names.index(device.node), device)
                for device in made.devices
            ],
            grant=listed[0].grant,
            key=listed[0].key,
        )
        if len(listed) == 1:
            listed[0].grant = listed[0].key = ""
        return content, expires_unix


def _device(row: Any, node: int, granted: GrantedDevice) -> SessionDevice:
    if row is None:
        raise NotFound(f"there is no device {granted.index} on {granted.node}")
    return SessionDevice(node, granted.index, row.uuid, row.name, granted.share_bytes)
