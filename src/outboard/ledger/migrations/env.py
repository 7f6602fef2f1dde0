"""Alembic's environment: runs the migrations on the connection that the ledger hands in.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from outboard.ledger.schema import metadata


def run() -> None:
    """Run on the connection in the configuration's attributes; there is no offline mode."""
    connection = context.config.attributes["connection"]
    if not isinstance(connection, sa.Connection):
        raise TypeError("the migrations run on the ledger's own connection")
    # SQLite alters a table by copying it: batch mode.
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


run()
