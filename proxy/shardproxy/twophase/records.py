"""The SQL of the commit protocol: tables, and the exact texts that coordinator and recovery send.

Invariant: every value in these texts is a number, a hex string or a GID, so quoting needs no escaping; every name of ours is
qualified, so no search_path of a client can redirect it (postgres-facts 5).
"""

from __future__ import annotations

from collections.abc import Iterable

from shardproxy.twophase.gid import Gid

SCHEMA_VERSION = 1
"""Version of the tables below; they change by a new table beside the old one, never by ALTER."""

OWNER_ROLE = "pgshepherd"
"""The NOLOGIN role that owns the schema and all tables in it."""

TABLES = """\
CREATE TABLE IF NOT EXISTS pgshepherd.shard (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  cluster text NOT NULL, name text NOT NULL, number int NOT NULL, members int[] NOT NULL, schema_version int NOT NULL,
  system_identifier bigint NOT NULL, epoch bigint NOT NULL, epoch_since timestamptz NOT NULL, retired bigint NOT NULL,
  compared_timeline int NOT NULL);
CREATE TABLE IF NOT EXISTS pgshepherd.commit_record (
  txn uuid, shard int, decision_shard int NOT NULL, epoch bigint NOT NULL, participants int[] NOT NULL,
  outcome text NOT NULL DEFAULT 'commit' CHECK (outcome IN ('commit','abort')), who name NOT NULL DEFAULT current_user,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (txn, shard));
GRANT USAGE ON SCHEMA pgshepherd TO PUBLIC;
GRANT SELECT (epoch) ON pgshepherd.shard TO PUBLIC;
GRANT INSERT (txn, shard, decision_shard, epoch, participants) ON pgshepherd.commit_record TO PUBLIC;
"""
"""Table definitions and the rights of every application role: it can neither write an abort, nor read, change or delete."""

TIMELINE = "pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)"
"""A primary's timeline as 8 hex digits; pg_control_checkpoint() lags behind after a promotion."""

CONFIRM_DURABLE = "SELECT pg_catalog.pg_logical_emit_message(true, 'pgshepherd', '')"
"""A write whose commit waits for the synchronous standby: confirmed without 01000, everything before it is replicated too."""

CLOSE_READER = "SELECT 1/(pg_catalog.pg_current_xact_id_if_assigned() IS NULL)::pg_catalog.int4; COMMIT"
"""Ends a reader before the decision; 22012 (division by zero) if it wrote after all."""


def prepare_message(
    gid: Gid, participants: Iterable[int], *, raise_synchronous_commit: bool = True, verb: str | None = None
) -> str:
    """Step 1's one simple-query message: record and PREPARE; with last agent step 3's on the decision shard, `verb` = COMMIT.

    The SAVEPOINT fails (25P01) outside a transaction, where INSERT; PREPARE would prepare an empty one with a record.  On the
    decision shard the epoch is read, so that a coordinator that was superseded twice gets 23502.
    """
    members = "{" + ",".join(str(number) for number in sorted(participants)) + "}"
    epoch = f"(SELECT {gid.epoch} FROM pgshepherd.shard WHERE epoch <= {gid.epoch} + 1)" if gid.is_decision else str(gid.epoch)
    durable = _AT_LEAST_ON if raise_synchronous_commit else ""
    return (
        "SAVEPOINT pgs; RELEASE pgs; SET LOCAL client_min_messages = warning; "
        f"{durable}SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL ROLE NONE; "
        "INSERT INTO pgshepherd.commit_record (txn, shard, decision_shard, epoch, participants) "
        f"VALUES ('{gid.txn}', {gid.shard}, {gid.decision_shard}, {epoch}, '{members}'); "
        f"{verb or prepare(gid.text)}"
    )


_AT_LEAST_ON = (
    "SELECT pg_catalog.set_config('synchronous_commit', CASE WHEN pg_catalog.current_setting('synchronous_commit') "
    "IN ('off', 'local', 'remote_write') THEN 'on' ELSE pg_catalog.current_setting('synchronous_commit') END, true); "
)


def prepare(gid: str) -> str:
    """PREPARE TRANSACTION for a GID of ours."""
    return f"PREPARE TRANSACTION '{gid}'"


def commit_prepared(gid: str) -> str:
    """COMMIT PREPARED; must be alone in its message (25001)."""
    return f"COMMIT PREPARED '{gid}'"


def rollback_prepared(gid: str) -> str:
    """ROLLBACK PREPARED; must be alone in its message (25001)."""
    return f"ROLLBACK PREPARED '{gid}'"


def read_gid(gid: str) -> str:
    """Is it prepared in this database, and by whom?  Sent before `read_record`, never after or together with it."""
    return f"SELECT gid, owner FROM pg_catalog.pg_prepared_xacts WHERE gid = '{gid}' AND database = pg_catalog.current_database()"


def read_record(txn: str, shard: int) -> str:
    """The record and `retired` in one statement: one row, record columns NULL where there is none."""
    return (
        "SELECT s.retired, r.outcome, r.who, r.decision_shard, r.epoch, r.participants "
        "FROM pgshepherd.shard s LEFT JOIN pgshepherd.commit_record r "
        f"ON r.txn = '{txn}' AND r.shard = {shard}"
    )


def tombstone(txn: str, decision_shard: int, epoch: int) -> str:
    """Write abort into the write-once register on D; the same statement checks that the epoch is not retired (!)."""
    return (
        "INSERT INTO pgshepherd.commit_record (txn, shard, decision_shard, epoch, participants, outcome) "
        f"SELECT '{txn}', {decision_shard}, {decision_shard}, {epoch}, '{{}}', 'abort' "
        f"FROM pgshepherd.shard WHERE retired < {epoch} ON CONFLICT DO NOTHING"
    )


def record_by_hand(txn: str, decision_shard: int, epoch: int) -> str:
    """A person's decision to commit where D's part is gone: evidence for every recovery, unless the register says something already."""
    return (
        "INSERT INTO pgshepherd.commit_record (txn, shard, decision_shard, epoch, participants) "
        f"VALUES ('{txn}', {decision_shard}, {decision_shard}, {epoch}, '{{}}') ON CONFLICT DO NOTHING"
    )


def limited_tombstone(txn: str, decision_shard: int, epoch: int, lock_timeout: str) -> str:
    """The tombstone in one simple-query message that waits no longer (55P03) for somebody's open transaction."""
    return f"SET LOCAL lock_timeout = '{lock_timeout}'; {tombstone(txn, decision_shard, epoch)}"


TOMBSTONE_WAIT = "500ms"
"""How long the tombstone waits for a coordinator that has written its record and not yet ended."""

FENCED_WAIT = "3s"
"""How long it waits while a second session ends that coordinator's: enough for a look, and for a session to end."""


def fence(waiter: int) -> str:
    """End the session whose open transaction keeps the tombstone of the backend `waiter` waiting, if it is the current role's own.

    Only a wait for a transactionid counts: one for a relation is somebody's DDL.  A prepared transaction has no pid.
    """
    return (
        "SELECT pg_catalog.pg_terminate_backend(h.pid) FROM pg_catalog.pg_locks w JOIN pg_catalog.pg_locks h "
        "ON h.transactionid = w.transactionid "
        f"WHERE w.pid = {waiter} AND w.locktype = 'transactionid' AND NOT w.granted "
        "AND h.locktype = 'transactionid' AND h.granted AND h.mode = 'ExclusiveLock' AND h.pid IS NOT NULL "
        "AND EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.pid = h.pid AND a.usename = current_user)"
    )
