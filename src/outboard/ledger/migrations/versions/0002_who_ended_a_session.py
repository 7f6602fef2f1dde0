"""Who ended a session: its holder is told, and does not begin the next one by itself.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Sessions that ended before count as ended by a rule."""
    with op.batch_alter_table("sessions") as table:
        table.add_column(sa.Column("ended_by", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    """A ledger goes forward only: the way back is the backup from before."""
    raise NotImplementedError("restore the backup that was made before the upgrade")
