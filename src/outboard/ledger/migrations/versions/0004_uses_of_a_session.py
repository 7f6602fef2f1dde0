"""The uses of a session are found without reading all uses: each release asks for them.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One index more."""
    op.create_index("ix_usage_session", "usage", ["session"])


def downgrade() -> None:
    """A ledger goes forward only: the way back is the backup from before."""
    raise NotImplementedError("restore the backup that was made before the upgrade")
