"""Why a request got what it got: the pool as it was then, read back from grants and audit log.

SPDX-License-Identifier: Apache-2.0

What was free of each device follows from the grants' spans. What took nothing new, and what was
kept for others, the grant's line of the audit log says (`Image.seen`). Filters are judged by what
servers and devices are now.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from outboard.controller.image import read_devices
from outboard.ledger.grants import Granted
from outboard.ledger.requests import Terms, find_request
from outboard.ledger.schema import audit, grants, nodes
from outboard.ledger.transaction import Transaction
from outboard.model.request import GrantedDevice
from outboard.scheduler.explanation import Explanation, explain_grant
from outboard.scheduler.placement import DeviceState, Key


def explain_granted(tx: Transaction, terms: Terms, made: Granted) -> Explanation:
    """Why it was placed so; of the moment of its grant, whatever became of it since."""
    lines = tx.connection.execute(
        sa.select(audit.c.detail)
        .where(audit.c.at_us == made.started_us, audit.c.action == "grant")
        .order_by(audit.c.id)
    ).scalars()
    sooner: list[str] = []  # granted at the same moment, in the same turn, before it
    for detail in lines:
        if detail["allocation"] == made.allocation:
            break
        sooner.append(detail["allocation"])
    else:
        return Explanation(("how it was placed is not recorded",))
    chosen = [GrantedDevice(*device) for device in detail["devices"]]
    before = _devices_before(tx, terms, made, sooner, detail)
    kept = {(node, index) for node, index in detail.get("kept", ())}
    ask = find_request(tx, made.request)
    found = explain_grant(ask.request, chosen, before, kept)
    waited_s = max(0, made.started_us - ask.created_us) / 1e6
    line = f"granted after {waited_s:.3f} s: session {made.session}"
    more = detail.get("more_closed", 0)
    also = (f"{more} more GPUs took nothing new then; they are judged as if they had",)
    return replace(found, lines=(line, *found.lines, *(also if more else ())))


def _devices_before(
    tx: Transaction, terms: Terms, made: Granted, sooner: list[str], detail: dict[str, Any]
) -> list[DeviceState]:
    at_us = made.started_us
    held: Counter[Key] = Counter()
    spans = sa.select(grants.c.node, grants.c.idx, grants.c.share_bytes).where(
        sa.or_(grants.c.ended_us.is_(None), grants.c.ended_us > at_us),
        sa.or_(
            grants.c.started_us < at_us,
            sa.and_(grants.c.started_us == at_us, grants.c.allocation.in_(sooner)),
        ),
    )
    for row in tx.connection.execute(spans):
        held[row.node, row.idx] += row.share_bytes
    later = set(
        tx.connection.execute(sa.select(nodes.c.name).where(nodes.c.enrolled_us > at_us)).scalars()
    )
    closed = {(node, index): why for node, index, why in detail.get("closed", ())}
    return [
        replace(device, granted_bytes=held[key], closed=closed.get(key, ""))
        for key, device in sorted(read_devices(tx, terms).devices.items())
        if device.node not in later
    ]
