"""Idle limits: when an allocation was used last, and when its holder was warned.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Allocations from before count as used when the first report of a use comes, or as granted."""
    with op.batch_alter_table("allocations") as table:
        table.add_column(sa.Column("used_us", sa.BigInteger(), server_default="0", nullable=False))
        table.add_column(sa.Column("idle_warned_us", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    """A ledger goes forward only: the way back is the backup from before."""
    raise NotImplementedError("restore the backup that was made before the upgrade")
