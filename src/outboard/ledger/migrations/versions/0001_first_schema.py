"""The first schema: pool, users, limits, requests, grants, usage, audit.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    _create_controllers()
    _create_epochs()
    _create_nodes()
    _create_devices()
    _create_users()
    _create_groups()
    _create_memberships()
    _create_hosts()
    _create_tokens()
    _create_limits()
    _create_limit_use()
    _create_requests()
    _create_allocations()
    _create_grants()
    _create_leases()
    _create_sessions()
    _create_usage()
    _create_audit()
    _create_changes()
    _guard_audit()


def downgrade() -> None:
    """A ledger goes forward only: the way back is the backup from before."""
    raise NotImplementedError("restore the backup that was made before the upgrade")


def _create_controllers() -> None:
    op.create_table(
        "controllers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), server_default="", nullable=False),
        sa.Column("public_key", sa.Text(), server_default="", nullable=False),
        sa.Column("joined_us", sa.BigInteger(), nullable=False),
        sa.Column("seen_us", sa.BigInteger(), nullable=False),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_controllers")),
    )


def _create_epochs() -> None:
    op.create_table(
        "epochs",
        sa.Column("base", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("begun_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("base", name=op.f("pk_epochs")),
    )


def _create_nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), server_default="", nullable=False),
        sa.Column("hostname", sa.Text(), server_default="", nullable=False),
        sa.Column("tls", sa.Text(), server_default="none", nullable=False),
        sa.Column("pool", sa.Text(), server_default="default", nullable=False),
        sa.Column("driver", sa.Text(), server_default="", nullable=False),
        sa.Column("driver_version", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("protocol", sa.Text(), server_default="", nullable=False),
        sa.Column("release", sa.Text(), server_default="", nullable=False),
        sa.Column("software", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("labels", sa.JSON(), server_default="{}", nullable=False),
        sa.Column("state", sa.Text(), server_default="ready", nullable=False),
        sa.Column("state_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("drain_deadline_us", sa.BigInteger(), nullable=True),
        sa.Column("healthy", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("health_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("key_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("certificate_sha256", sa.Text(), server_default="", nullable=False),
        sa.Column("machine", sa.Text(), server_default="", nullable=False),
        sa.Column("reconciled_base", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("telemetry", sa.JSON(), server_default="{}", nullable=False),
        sa.Column("enrolled_us", sa.BigInteger(), nullable=False),
        sa.Column("seen_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "state IN ('ready', 'cordoned', 'draining', 'removed')", name=op.f("ck_nodes_state")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_nodes")),
    )


def _create_devices() -> None:
    op.create_table(
        "devices",
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("idx", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("uuid", sa.Text(), server_default="", nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("total_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("capacity_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("context_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("minimum_share_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("compute_capability", sa.Text(), server_default="", nullable=False),
        sa.Column("pci", sa.Text(), server_default="", nullable=False),
        sa.Column("multiprocessors", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("mig", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("state", sa.Text(), server_default="ready", nullable=False),
        sa.Column("state_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("healthy", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("health_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("granted_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "state IN ('ready', 'cordoned', 'removed')", name=op.f("ck_devices_state")
        ),
        sa.CheckConstraint(
            "0 <= granted_bytes AND granted_bytes <= capacity_bytes",
            name=op.f("ck_devices_granted"),
        ),
        sa.ForeignKeyConstraint(["node"], ["nodes.name"], name=op.f("fk_devices_node")),
        sa.PrimaryKeyConstraint("node", "idx", name=op.f("pk_devices")),
    )


def _create_users() -> None:
    op.create_table(
        "users",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("full_name", sa.Text(), server_default="", nullable=False),
        sa.Column("weight", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("direct", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("disabled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("weight > 0", name=op.f("ck_users_weight")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_users")),
    )


def _create_groups() -> None:
    op.create_table(
        "groups",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_groups")),
    )


def _create_memberships() -> None:
    op.create_table(
        "memberships",
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("group_name", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_name"], ["groups.name"], name=op.f("fk_memberships_group_name")
        ),
        sa.ForeignKeyConstraint(
            ["user_name"], ["users.name"], name=op.f("fk_memberships_user_name")
        ),
        sa.PrimaryKeyConstraint("user_name", "group_name", name=op.f("pk_memberships")),
    )


def _create_hosts() -> None:
    op.create_table(
        "hosts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("policy", sa.Text(), server_default="any", nullable=False),
        sa.Column("enrolled_us", sa.BigInteger(), nullable=False),
        sa.Column("seen_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "policy IN ('any', 'service-only', 'blocked')", name=op.f("ck_hosts_policy")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
    )


def _create_tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.Text(), server_default="", nullable=False),
        sa.Column("subject_kind", sa.Text(), server_default="", nullable=False),
        sa.Column("subject", sa.Text(), server_default="", nullable=False),
        sa.Column("scopes", sa.Text(), server_default="", nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=True),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.Column("used_us", sa.BigInteger(), nullable=True),
        sa.Column("uses_left", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "subject_kind IN ('user', 'host', 'node', 'join', 'controller')",
            name=op.f("ck_tokens_subject_kind"),
        ),
        sa.CheckConstraint("uses_left IS NULL OR uses_left >= 0", name=op.f("ck_tokens_uses_left")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )


def _create_limits() -> None:
    op.create_table(
        "limits",
        sa.Column("subject_kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=True),
        sa.Column("names", sa.Text(), server_default="", nullable=False),
        sa.Column("set_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('gpus', 'bytes', 'sessions', 'session_s', 'idle_s', 'priority', 'pools')",
            name=op.f("ck_limits_kind"),
        ),
        sa.CheckConstraint(
            "subject_kind IN ('user', 'group', 'host')", name=op.f("ck_limits_subject_kind")
        ),
        sa.CheckConstraint(
            "value IS NULL OR value >= 0 OR kind = 'priority'", name=op.f("ck_limits_value")
        ),
        sa.PrimaryKeyConstraint("subject_kind", "subject", "kind", name=op.f("pk_limits")),
    )


def _create_limit_use() -> None:
    op.create_table(
        "limit_use",
        sa.Column("subject_kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("used", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("maximum", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("kind IN ('gpus', 'bytes', 'sessions')", name=op.f("ck_limit_use_kind")),
        sa.CheckConstraint(
            "subject_kind IN ('user', 'group', 'host')", name=op.f("ck_limit_use_subject_kind")
        ),
        sa.CheckConstraint(
            "0 <= used AND (maximum IS NULL OR used <= maximum)", name=op.f("ck_limit_use_used")
        ),
        sa.PrimaryKeyConstraint("subject_kind", "subject", "kind", name=op.f("pk_limit_use")),
    )


def _create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("origin", sa.Text(), server_default="", nullable=False),
        sa.Column("uid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("pid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("program", sa.Text(), server_default="", nullable=False),
        sa.Column("holder_sha256", sa.Text(), server_default="", nullable=False),
        sa.Column("gpus", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("share_millionths", sa.BigInteger(), nullable=True),
        sa.Column("share_bytes", sa.BigInteger(), nullable=True),
        sa.Column("filters", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("spread", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("same_node", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("node", sa.Text(), server_default="", nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("pool", sa.Text(), server_default="", nullable=False),
        sa.Column("priority", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("wanted_us", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("seen_us", sa.BigInteger(), nullable=False),
        sa.Column("wait_until_us", sa.BigInteger(), nullable=True),
        sa.Column("finished_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'granted', 'refused', 'cancelled', 'timed_out', 'lost')",
            name=op.f("ck_requests_state"),
        ),
        sa.CheckConstraint("gpus > 0", name=op.f("ck_requests_gpus")),
        sa.ForeignKeyConstraint(["host"], ["hosts.id"], name=op.f("fk_requests_host")),
        sa.ForeignKeyConstraint(["user_name"], ["users.name"], name=op.f("fk_requests_user_name")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
    )
    op.create_index(
        "ix_requests_waiting",
        "requests",
        ["created_us"],
        unique=False,
        postgresql_where=sa.text("state = 'waiting'"),
        sqlite_where=sa.text("state = 'waiting'"),
    )


def _create_allocations() -> None:
    op.create_table(
        "allocations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("groups", sa.Text(), server_default="", nullable=False),
        sa.Column("epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("state", sa.Text(), server_default="active", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("end_by_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "(state = 'ended') = (ended_us IS NOT NULL)", name=op.f("ck_allocations_ended")
        ),
        sa.CheckConstraint(
            "state IN ('active', 'ending', 'ended')", name=op.f("ck_allocations_state")
        ),
        sa.ForeignKeyConstraint(["host"], ["hosts.id"], name=op.f("fk_allocations_host")),
        sa.ForeignKeyConstraint(["request"], ["requests.id"], name=op.f("fk_allocations_request")),
        sa.ForeignKeyConstraint(
            ["user_name"], ["users.name"], name=op.f("fk_allocations_user_name")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_allocations")),
        sa.UniqueConstraint("request", name=op.f("uq_allocations_request")),
    )
    op.create_index(
        "ix_allocations_live",
        "allocations",
        ["user_name"],
        unique=False,
        postgresql_where=sa.text("state != 'ended'"),
        sqlite_where=sa.text("state != 'ended'"),
    )


def _create_grants() -> None:
    op.create_table(
        "grants",
        sa.Column("allocation", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("share_bytes", sa.BigInteger(), nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "ended_us IS NULL OR ended_us >= started_us", name=op.f("ck_grants_span")
        ),
        sa.CheckConstraint("share_bytes > 0", name=op.f("ck_grants_share_bytes")),
        sa.ForeignKeyConstraint(
            ["allocation"], ["allocations.id"], name=op.f("fk_grants_allocation")
        ),
        sa.ForeignKeyConstraint(
            ["node", "idx"], ["devices.node", "devices.idx"], name=op.f("fk_grants_node_idx")
        ),
        sa.PrimaryKeyConstraint("allocation", "ordinal", "epoch", name=op.f("pk_grants")),
    )
    op.create_index("ix_grants_ended_us", "grants", ["ended_us"], unique=False)
    op.create_index(
        "ix_grants_live",
        "grants",
        ["node", "idx"],
        unique=False,
        postgresql_where=sa.text("ended_us IS NULL"),
        sqlite_where=sa.text("ended_us IS NULL"),
    )
    op.create_index(
        "uq_grants_live",
        "grants",
        ["allocation", "node", "idx"],
        unique=True,
        postgresql_where=sa.text("ended_us IS NULL"),
        sqlite_where=sa.text("ended_us IS NULL"),
    )


def _create_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("allocation", sa.Text(), nullable=False),
        sa.Column("holder_sha256", sa.Text(), server_default="", nullable=False),
        sa.Column("picked_up", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("programs", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("renewed_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["allocation"], ["allocations.id"], name=op.f("fk_leases_allocation")
        ),
        sa.PrimaryKeyConstraint("allocation", name=op.f("pk_leases")),
    )
    op.create_index("ix_leases_expires_us", "leases", ["expires_us"], unique=False)


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("allocation", sa.Text(), nullable=True),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("program", sa.Text(), server_default="", nullable=False),
        sa.Column("uid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("pid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("state", sa.Text(), server_default="active", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "state IN ('active', 'standby', 'ending', 'ended')", name=op.f("ck_sessions_state")
        ),
        sa.ForeignKeyConstraint(
            ["allocation"], ["allocations.id"], name=op.f("fk_sessions_allocation")
        ),
        sa.ForeignKeyConstraint(["host"], ["hosts.id"], name=op.f("fk_sessions_host")),
        sa.ForeignKeyConstraint(["user_name"], ["users.name"], name=op.f("fk_sessions_user_name")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("allocation", name=op.f("uq_sessions_allocation")),
    )
    op.create_index(
        "ix_sessions_live",
        "sessions",
        ["user_name"],
        unique=False,
        postgresql_where=sa.text("state != 'ended'"),
        sqlite_where=sa.text("state != 'ended'"),
    )


def _create_usage() -> None:
    op.create_table(
        "usage",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("uid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("pid", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("program", sa.Text(), server_default="", nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("busy_us", sa.BigInteger(), nullable=True),
        sa.Column("calls", sa.BigInteger(), nullable=True),
        sa.Column("to_device_bytes", sa.BigInteger(), nullable=True),
        sa.Column("to_host_bytes", sa.BigInteger(), nullable=True),
        sa.Column("peak_bytes", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["node", "idx"], ["devices.node", "devices.idx"], name=op.f("fk_usage_node_idx")
        ),
        sa.ForeignKeyConstraint(["session"], ["sessions.id"], name=op.f("fk_usage_session")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage")),
        sa.UniqueConstraint("worker", "node", "idx", name=op.f("uq_usage_worker_node_idx")),
        sqlite_autoincrement=True,
    )


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), server_default="", nullable=False),
        sa.Column("origin", sa.Text(), server_default="", nullable=False),
        sa.Column("action", sa.Text(), server_default="", nullable=False),
        sa.Column("subject", sa.Text(), server_default="", nullable=False),
        sa.Column("detail", sa.JSON(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_at_us", "audit", ["at_us"], unique=False)


def _create_changes() -> None:
    op.create_table(
        "changes",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), server_default="", nullable=False),
        sa.Column("subject", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_changes")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_changes_at_us", "changes", ["at_us"], unique=False)


def _guard_audit() -> None:
    say = "the audit log is append-only"
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION audit_refuses() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION '{say}'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_refuses BEFORE UPDATE OR DELETE OR TRUNCATE ON audit"
            " FOR EACH STATEMENT EXECUTE FUNCTION audit_refuses()"
        )
        return
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_refuses_{verb.lower()} BEFORE {verb} ON audit"
            f" BEGIN SELECT RAISE(ABORT, '{say}'); END"
        )
