"""${message}.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """${message}."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """A ledger goes forward only: the way back is the backup from before."""
    raise NotImplementedError("restore the backup that was made before the upgrade")
