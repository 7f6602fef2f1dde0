"""The ledger's tables and the constraints that make a double grant impossible.

SPDX-License-Identifier: Apache-2.0

The same tables on SQLite and PostgreSQL. Times are integer microseconds UTC (`_us`), amounts of
memory are bytes (`_bytes`); there are no floats. docs/internals/ledger.md explains the invariants.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Integer,
    Table,
    Text,
)

# Names by rule, so that a migration can alter a constraint on either database.
metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

# SQLite numbers rows by itself only where the type is exactly INTEGER; it holds 64 bits there.
_Serial = BigInteger().with_variant(Integer(), "sqlite")


def _text(name: str, default: str = "") -> Column[str]:
    return Column(name, Text, nullable=False, server_default=default)


def _whole(name: str, default: int = 0) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=str(default))


def _flag(name: str, *, default: bool = False) -> Column[bool]:
    chosen = sa.true() if default else sa.false()
    return Column(name, Boolean, nullable=False, server_default=chosen)


def _time(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _one_of(column: str, *values: str) -> CheckConstraint:
    allowed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({allowed})", name=column)


# --- who runs the pool ---------------------------------------------------------------------------

# The controllers and the public halves (Ed25519, hex) of the keys that they sign grants with.
controllers = Table(
    "controllers",
    metadata,
    Column("name", Text, primary_key=True),
    _text("address"),
    _text("public_key"),
    _time("joined_us"),
    _time("seen_us"),
    _time("revoked_us", nullable=True),
)

# One row for every beginning of this ledger: its creation (base 0), each restore. An allocation's
# epochs count up from the base that was in force when it was granted; a restore starts above all.
epochs = Table(
    "epochs",
    metadata,
    Column("base", BigInteger, primary_key=True, autoincrement=False),
    _text("reason"),
    _time("begun_us"),
)

# --- what the pool has ---------------------------------------------------------------------------

# `key_sealed` is the node's key from enrolment, `certificate_sha256` its agent's certificate.
# A node takes grants only once its agent has reconciled under the newest base of `epochs`.
nodes = Table(
    "nodes",
    metadata,
    Column("name", Text, primary_key=True),
    _text("address"),
    _text("hostname"),
    _text("tls", "none"),
    _text("pool", "default"),
    _text("driver"),
    _whole("driver_version"),
    _text("driver_release"),
    _text("protocol"),
    _text("release"),
    _flag("software"),
    Column("labels", sa.JSON, nullable=False, server_default="{}"),
    _text("state", "ready"),
    _text("state_reason"),
    _time("drain_deadline_us", nullable=True),
    _flag("healthy", default=True),
    _text("health_reason"),
    Column("key_sealed", sa.LargeBinary, nullable=True),
    _text("certificate_sha256"),
    _text("machine"),
    _whole("reconciled_base"),
    Column("telemetry", sa.JSON, nullable=False, server_default="{}"),
    _time("enrolled_us"),
    _time("seen_us"),
    _one_of("state", "ready", "cordoned", "draining", "removed"),
)

# `granted_bytes` is the counter that every grant and release changes in its own transaction.
devices = Table(
    "devices",
    metadata,
    Column("node", Text, ForeignKey(nodes.c.name), primary_key=True),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    _text("uuid"),
    _text("name"),
    _whole("total_bytes"),
    _whole("capacity_bytes"),
    _whole("context_bytes"),
    _whole("minimum_share_bytes"),
    _text("compute_capability"),
    _text("pci"),
    _whole("multiprocessors"),
    _flag("mig"),
    _text("state", "ready"),
    _text("state_reason"),
    _flag("healthy", default=True),
    _text("health_reason"),
    _whole("granted_bytes"),
    CheckConstraint("0 <= granted_bytes AND granted_bytes <= capacity_bytes", name="granted"),
    _one_of("state", "ready", "cordoned", "removed"),
)

# --- who uses it ---------------------------------------------------------------------------------

users = Table(
    "users",
    metadata,
    Column("name", Text, primary_key=True),
    _text("full_name"),
    _whole("weight", 1),
    _flag("direct", default=True),
    _flag("disabled"),
    _time("created_us"),
    CheckConstraint("weight > 0", name="weight"),
)

groups = Table(
    "groups",
    metadata,
    Column("name", Text, primary_key=True),
    _time("created_us"),
)

memberships = Table(
    "memberships",
    metadata,
    Column("user_name", Text, ForeignKey(users.c.name), primary_key=True),
    Column("group_name", Text, ForeignKey(groups.c.name), primary_key=True),
)

# Client machines; `id` is what enrolment bound the machine's token to.
hosts = Table(
    "hosts",
    metadata,
    Column("id", Text, primary_key=True),
    _text("name"),
    _text("policy", "any"),
    _time("enrolled_us"),
    _time("seen_us"),
    _one_of("policy", "any", "service-only", "blocked"),
)

# `secret_sha256` is hex. A join token has `uses_left`; scopes are words with spaces between.
tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    _text("secret_sha256"),
    _text("subject_kind"),
    _text("subject"),
    _text("scopes"),
    _text("note"),
    _time("created_us"),
    _time("expires_us", nullable=True),
    _time("revoked_us", nullable=True),
    _time("used_us", nullable=True),
    Column("uses_left", BigInteger, nullable=True),
    _one_of("subject_kind", "user", "host", "node", "join", "controller"),
    CheckConstraint("uses_left IS NULL OR uses_left >= 0", name="uses_left"),
)

# --- limits --------------------------------------------------------------------------------------

# What an administrator said; subject '*' is the default of its kind. `value` counts GPUs, bytes,
# sessions, seconds or a priority; `names` lists pools.
limits = Table(
    "limits",
    metadata,
    Column("subject_kind", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("value", BigInteger, nullable=True),
    _text("names"),
    _time("set_us"),
    _one_of("subject_kind", "user", "group", "host"),
    _one_of("kind", "gpus", "bytes", "sessions", "session_s", "idle_s", "priority", "pools"),
    CheckConstraint("value IS NULL OR value >= 0 OR kind = 'priority'", name="value"),
)

# The counters. `maximum` is the limit in force, or what is used where that is more: lowering a
# limit below its use blocks new grants, ends nothing, and follows the use down.
limit_use = Table(
    "limit_use",
    metadata,
    Column("subject_kind", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    _whole("used"),
    Column("maximum", BigInteger, nullable=True),
    CheckConstraint("0 <= used AND (maximum IS NULL OR used <= maximum)", name="used"),
    _one_of("subject_kind", "user", "group", "host"),
    _one_of("kind", "gpus", "bytes", "sessions"),
)

# --- what is asked for and granted ---------------------------------------------------------------

# `id` is made by the client, so that a repeated request is the same request. `seen_us` is the
# client's last sign. The columns from `gpus` to `pool` are what was asked for.
requests = Table(
    "requests",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_name", Text, ForeignKey(users.c.name), nullable=False),
    Column("host", Text, ForeignKey(hosts.c.id), nullable=True),
    _text("origin"),
    _whole("uid"),
    _whole("pid"),
    _text("program"),
    _text("holder_sha256"),
    _whole("gpus", 1),
    Column("share_millionths", BigInteger, nullable=True),
    Column("share_bytes", BigInteger, nullable=True),
    Column("filters", sa.JSON, nullable=False, server_default="[]"),
    _flag("spread"),
    _flag("same_node"),
    _text("node"),
    _text("name"),
    _text("pool"),
    _whole("priority"),
    Column("wanted_us", BigInteger, nullable=True),
    _text("state", "waiting"),
    _text("reason"),
    _time("created_us"),
    _time("seen_us"),
    _time("wait_until_us", nullable=True),
    _time("finished_us", nullable=True),
    _one_of("state", "waiting", "granted", "refused", "cancelled", "timed_out", "lost"),
    CheckConstraint("gpus > 0", name="gpus"),
)
sa.Index(
    "ix_requests_waiting",
    requests.c.created_us,
    postgresql_where=requests.c.state == "waiting",
    sqlite_where=requests.c.state == "waiting",
)

# At most one allocation for a request, whatever happens: the unique key says so. `used_us` is when
# a program of it called last, 0 while no agent has said so; `idle_warned_us` when its holder was
# last warned of an idle limit.
allocations = Table(
    "allocations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("request", Text, ForeignKey(requests.c.id), nullable=False, unique=True),
    Column("user_name", Text, ForeignKey(users.c.name), nullable=False),
    Column("host", Text, ForeignKey(hosts.c.id), nullable=True),
    _text("groups"),
    _whole("epoch"),
    _text("state", "active"),
    _text("reason"),
    _time("started_us"),
    _time("ended_us", nullable=True),
    _time("end_by_us", nullable=True),
    _whole("used_us"),
    _time("idle_warned_us", nullable=True),
    _one_of("state", "active", "ending", "ended"),
    CheckConstraint("(state = 'ended') = (ended_us IS NOT NULL)", name="ended"),
)
sa.Index(
    "ix_allocations_live",
    allocations.c.user_name,
    postgresql_where=allocations.c.state != "ended",
    sqlite_where=allocations.c.state != "ended",
)

# Bytes of one device for one allocation over one span of time; a resize ends a row and starts one.
# Accounting is a sum over these rows, by whatever column, so that its sums match exactly.
grants = Table(
    "grants",
    metadata,
    Column("allocation", Text, ForeignKey(allocations.c.id), primary_key=True),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("node", Text, nullable=False),
    Column("idx", Integer, nullable=False),
    Column("user_name", Text, nullable=False),
    Column("share_bytes", BigInteger, nullable=False),
    _time("started_us"),
    _time("ended_us", nullable=True),
    sa.ForeignKeyConstraint(["node", "idx"], [devices.c.node, devices.c.idx]),
    CheckConstraint("share_bytes > 0", name="share_bytes"),
    CheckConstraint("ended_us IS NULL OR ended_us >= started_us", name="span"),
)
sa.Index(
    "ix_grants_live",
    grants.c.node,
    grants.c.idx,
    postgresql_where=grants.c.ended_us.is_(None),
    sqlite_where=grants.c.ended_us.is_(None),
)
sa.Index("ix_grants_ended_us", grants.c.ended_us)
# One allocation has a device once at a time.
sa.Index(
    "uq_grants_live",
    grants.c.allocation,
    grants.c.node,
    grants.c.idx,
    unique=True,
    postgresql_where=grants.c.ended_us.is_(None),
    sqlite_where=grants.c.ended_us.is_(None),
)

# Who keeps an allocation alive. `holder_sha256` is the hash of the secret that a new holder shows
# to take it over; `programs` is what the agents say is connected; `picked_up` that the client has
# shown a sign since the grant. Deleted when the allocation begins to end.
leases = Table(
    "leases",
    metadata,
    Column("allocation", Text, ForeignKey(allocations.c.id), primary_key=True),
    _text("holder_sha256"),
    _flag("picked_up"),
    _whole("programs"),
    _time("renewed_us"),
    _time("expires_us"),
    sa.Index("ix_leases_expires_us", "expires_us"),
)

# What one user's programs use; it outlives its allocation in standby. `ended_by` is who ended it,
# as the audit log names him; empty where it ended by a rule (lease, longest time, drain).
sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("allocation", Text, ForeignKey(allocations.c.id), nullable=True, unique=True),
    Column("user_name", Text, ForeignKey(users.c.name), nullable=False),
    Column("host", Text, ForeignKey(hosts.c.id), nullable=True),
    _text("name"),
    _text("program"),
    _whole("uid"),
    _whole("pid"),
    _text("state", "active"),
    _text("reason"),
    _time("created_us"),
    _time("ended_us", nullable=True),
    _text("ended_by"),
    _one_of("state", "active", "standby", "ending", "ended"),
)
sa.Index(
    "ix_sessions_live",
    sessions.c.user_name,
    postgresql_where=sessions.c.state != "ended",
    sqlite_where=sessions.c.state != "ended",
)

# --- what was used, done, changed ----------------------------------------------------------------

# What a worker counted for one client process on one device; NULL is "not known", never zero.
usage = Table(
    "usage",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    Column("session", Text, ForeignKey(sessions.c.id), nullable=False),
    Column("worker", Text, nullable=False),
    Column("node", Text, nullable=False),
    Column("idx", Integer, nullable=False),
    _whole("uid"),
    _whole("pid"),
    _text("program"),
    _time("started_us"),
    _time("ended_us", nullable=True),
    Column("busy_us", BigInteger, nullable=True),
    Column("calls", BigInteger, nullable=True),
    Column("to_device_bytes", BigInteger, nullable=True),
    Column("to_host_bytes", BigInteger, nullable=True),
    Column("peak_bytes", BigInteger, nullable=True),
    sa.UniqueConstraint("worker", "node", "idx"),
    sa.Index("ix_usage_session", "session"),
    sa.ForeignKeyConstraint(["node", "idx"], [devices.c.node, devices.c.idx]),
    sqlite_autoincrement=True,
)

# Append-only: triggers refuse every change of a row.
audit = Table(
    "audit",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    _time("at_us"),
    _text("actor"),
    _text("origin"),
    _text("action"),
    _text("subject"),
    Column("detail", sa.JSON, nullable=False, server_default="{}"),
    sa.Index("ix_audit_at_us", "at_us"),
    sqlite_autoincrement=True,
)

# What has changed since, read by `id >`: the feed of every controller's image and of its clients.
changes = Table(
    "changes",
    metadata,
    Column("id", _Serial, primary_key=True, autoincrement=True),
    _time("at_us"),
    _text("kind"),
    _text("subject"),
    sa.Index("ix_changes_at_us", "at_us"),
    sqlite_autoincrement=True,
)

_SAY = "the audit log is append-only"
_GUARD_FUNCTION = (
    "CREATE FUNCTION audit_refuses() RETURNS trigger LANGUAGE plpgsql AS"
    f" $$ BEGIN RAISE EXCEPTION '{_SAY}'; END $$"
)
_GUARD_TRIGGER = (
    "CREATE TRIGGER audit_refuses BEFORE UPDATE OR DELETE OR TRUNCATE ON audit"
    " FOR EACH STATEMENT EXECUTE FUNCTION audit_refuses()"
)


def guard_audit(connection: sa.Connection) -> None:
    """Make the audit log's table refuse every change of a row."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_GUARD_FUNCTION)
        connection.exec_driver_sql(_GUARD_TRIGGER)
        return
    for verb in ("UPDATE", "DELETE"):
        connection.exec_driver_sql(
            f"CREATE TRIGGER audit_refuses_{verb.lower()} BEFORE {verb} ON audit"
            f" BEGIN SELECT RAISE(ABORT, '{_SAY}'); END"
        )
