"""A server says which release its driver is.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Until its agent has said so again, a server's is not known."""
    with op.batch_alter_table("nodes") as batch:
        batch.add_column(sa.Column("driver_release", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    """A ledger goes forward only: the way back is the backup from before."""
    raise NotImplementedError("restore the backup that was made before the upgrade")
