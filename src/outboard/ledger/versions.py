"""The schema's version: a new database gets the newest, an older one is brought up to it.

SPDX-License-Identifier: Apache-2.0

Alembic is imported only where a database has to be migrated: it costs as much as all of SQLAlchemy,
and the pool that starts with a program has a new database.
"""

from __future__ import annotations

import os

import sqlalchemy as sa

from outboard.errors import ConfigurationError
from outboard.ledger.schema import guard_audit, metadata

NEWEST = "0005"

_version_table = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), primary_key=True),
)
_MIGRATION_LOCK = 0x6F7574626F617264  # "outboard": one controller migrates, the others wait


def ensure_newest(connection: sa.Connection) -> None:
    """Create or migrate the schema, inside the caller's transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
    found = _found(connection)
    if found is None:
        metadata.create_all(connection, checkfirst=False)
        guard_audit(connection)
        _version_table.create(connection)
        connection.execute(_version_table.insert().values(version_num=NEWEST))
    elif found != NEWEST:
        migrate(connection, found)


def migrate(connection: sa.Connection, found: str = "") -> None:
    """Run every migration that the database lacks."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", os.path.join(os.path.dirname(__file__), "migrations"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigurationError(
            f"the ledger's schema is {found}, which this release does not know: {error}",
            "use the release that wrote it, or a newer one",
        ) from error


def _found(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(_version_table.name):
        return None
    return connection.execute(sa.select(_version_table.c.version_num)).scalar()
