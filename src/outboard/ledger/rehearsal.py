"""Whether the ledger would grant: a request and its grant, done and undone in one transaction.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from outboard.errors import LimitReached
from outboard.ledger import requests
from outboard.ledger.database import Database
from outboard.ledger.grants import Lost
from outboard.ledger.requests import Terms
from outboard.ledger.transaction import Transaction
from outboard.model.request import GrantedDevice, Request


class _Undone(Exception):
    """Ends a transaction so that nothing of it is kept; says why it would have failed."""

    def __init__(self, reason: str, *, behind: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.behind = behind


def rehearse(
    database: Database, request: Request, chosen: Sequence[GrantedDevice], terms: Terms
) -> str | None:
    """Submit a request, grant it the chosen devices, and undo both.

    Returns why the grant would have to wait (a limit), empty where it would not; None if the
    chooser's picture is behind. Raises what submitting it would raise.
    """

    def work(tx: Transaction) -> NoReturn:
        requests.submit(tx, request)
        if not chosen:
            raise _Undone("")
        try:
            outcome = requests.grant(tx, request.id, chosen, terms)
        except LimitReached as error:
            raise _Undone(error.message) from error
        raise _Undone("", behind=isinstance(outcome, Lost))

    try:
        database.write(work)
    except _Undone as end:
        return None if end.behind else end.reason
