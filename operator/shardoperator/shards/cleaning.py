"""The clean-up engine's driver on one shard: each command is one or a few statements on the pass's one connection.

Invariant: what can't be seen counts as open, and a DELETE names exactly the rows that the engine has checked.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

import asyncpg

from shardoperator.shards.connect import execute, fetch
from shardproxy.twophase import cleanup_messages as c
from shardproxy.twophase.gid import PREFIX, parse
from shardproxy.twophase.messages import Done

REPLAY_TIMEOUT = 5.0
"""Seconds that a pass waits for connected standbys to replay what it has just seen."""

_STATE = """
SELECT epoch, epoch_since < clock_timestamp() - make_interval(secs => $1) AS lasted, retired, compared_timeline FROM pgshepherd.shard
"""
_SESSIONS = """
SELECT usename AS role, min(xact_start) AS oldest, bool_or(xact_start IS NULL AND COALESCE(state, 'disabled') = 'disabled') AS hidden
FROM pg_stat_activity
WHERE COALESCE(backend_type, 'client backend') = 'client backend' AND usename IS NOT NULL
  AND datname = current_database() AND pid <> pg_backend_pid()
GROUP BY usename
"""
"""A session that may not be seen has neither state nor backend_type; one that switched track_activities off is as good as hidden."""
_RECORDS = """
SELECT replace(txn::text, '-', '') AS txn, epoch, participants FROM pgshepherd.commit_record
WHERE shard = $1 AND decision_shard = $2 AND outcome = 'commit' AND epoch > $3 AND epoch <= $4
"""
_PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, $1)"
_OWN = """
SELECT s.retired, ARRAY(SELECT replace(r.txn::text, '-', '') FROM pgshepherd.commit_record r
                        WHERE r.txn = ANY($1::text[]::uuid[]) AND r.shard = $2 AND r.outcome = 'commit') AS txns FROM pgshepherd.shard s
"""
_STANDBYS = "SELECT count(*) FILTER (WHERE replay_lsn < $1::text::pg_lsn) FROM pg_stat_replication"
_LOSS = """
INSERT INTO pgshepherd.audit (cluster, txn, shard, action, reason)
SELECT s.cluster, $1::text::uuid, s.number, 'loss', $2 FROM pgshepherd.shard s
WHERE NOT EXISTS (SELECT FROM pgshepherd.audit a WHERE a.txn = $1::text::uuid AND a.action = 'loss' AND a.reason = $2) RETURNING 1
"""
_RETIRE = """
WITH retired AS (
  UPDATE pgshepherd.shard SET retired = $1 WHERE retired < $1 AND epoch >= $1 + 2 AND compared_timeline = $2
  AND NOT EXISTS (SELECT FROM pgshepherd.commit_record r LEFT JOIN unnest($3::text[]::uuid[]) AS checked (txn) USING (txn)
                  WHERE r.shard = number AND r.decision_shard = number AND r.outcome = 'commit' AND r.epoch <= $1 AND checked.txn IS NULL)
  RETURNING number
), gone AS (
  DELETE FROM pgshepherd.commit_record r USING retired
  WHERE r.shard = retired.number AND r.outcome = 'commit' AND r.txn = ANY($3::text[]::uuid[]) RETURNING 1
)
SELECT (SELECT count(*) FROM retired) AS retired, (SELECT count(*) FROM gone) AS gone
"""
_RAISE = """
UPDATE pgshepherd.shard SET epoch = epoch + 1, epoch_since = clock_timestamp()
WHERE epoch = $1 AND epoch_since < clock_timestamp() - make_interval(secs => $2)
"""
_DELETE = """
DELETE FROM pgshepherd.commit_record WHERE shard = $1 AND decision_shard = $2 AND outcome = 'commit' AND epoch <= $3
"""
_DELETE_TOMBSTONES = "DELETE FROM pgshepherd.commit_record WHERE shard = $1 AND outcome = 'abort' AND created_at < $2"
_LOSSES = """
SELECT replace(l.txn::text, '-', '') AS txn, l.reason FROM pgshepherd.audit l
WHERE l.action = 'loss' AND NOT EXISTS (SELECT FROM pgshepherd.audit a WHERE a.txn = l.txn AND a.action = 'acknowledge')
ORDER BY l.at LIMIT 100
"""


async def run(connection: asyncpg.Connection, command: c.Command, retention: float) -> c.Reply:
    """One command; `retention` in seconds.  Raises ShardError or asyncpg.PostgresError: nothing is known then."""
    shard = command.shard
    match command:
        case c.ReadState():
            row = (await fetch(connection, _STATE, retention))[0]
            return c.StateIs(shard, row["epoch"], row["lasted"], row["retired"], row["compared_timeline"])
        case c.CheckOpenTransactions():
            return await _open_transactions(connection, shard)
        case c.ReadRecords(_, decision, above, up_to):
            rows = await fetch(connection, _RECORDS, shard, decision, above, up_to)
            return c.RecordsAre(
                shard, tuple(c.CommitRecord(row["txn"], row["epoch"], tuple(row["participants"])) for row in rows)
            )
        case c.ReadPrepared():
            found = (parse(row["gid"]) for row in await fetch(connection, _PREPARED, PREFIX))
            return c.PreparedAre(shard, tuple(gid for gid in found if gid is not None and gid.shard == shard))
        case c.ReadOwn(_, txns):
            row = (await fetch(connection, _OWN, list(txns), shard))[0]
            return c.OwnAre(shard, frozenset(row["txns"]), row["retired"])
        case c.CheckReplayed():
            return await _replayed(connection, shard)
        case _:
            return await _write(connection, command, retention)


async def _write(connection: asyncpg.Connection, command: c.Command, retention: float) -> c.Reply:
    shard = command.shard
    match command:
        case c.WriteLoss(_, txn, text):
            rows = await fetch(connection, _LOSS, txn, text)
            return Done(shard) if rows else c.Held(shard, "it was written down before")
        case c.SetCompared(_, timeline):
            await fetch(connection, "UPDATE pgshepherd.shard SET compared_timeline = $1", timeline)
        case c.Retire(_, epoch, txns, timeline):
            row = (await fetch(connection, _RETIRE, epoch, timeline, list(txns)))[0]
            if not row["retired"]:
                return c.Held(
                    shard, f"epoch {epoch} of shard {shard}: retired by somebody else, or a commit was recorded meanwhile"
                )
        case c.RaiseEpoch(_, epoch):
            await fetch(connection, _RAISE, epoch, retention)
        case c.DeleteRecords(_, decision, retired):
            await fetch(connection, _DELETE, shard, decision, retired)
        case c.DeleteTombstones():
            oldest, hidden = await _sessions(connection)
            if not hidden:
                await fetch(connection, _DELETE_TOMBSTONES, shard, oldest)
        case _:
            raise AssertionError(f"no such command: {command}")
    return Done(shard)


async def _open_transactions(connection: asyncpg.Connection, shard: int) -> c.Reply:
    since = (await fetch(connection, "SELECT epoch_since FROM pgshepherd.shard"))[0][0]
    oldest, hidden = await _sessions(connection)
    if hidden:
        roles = ", ".join(hidden)
        return c.Held(shard, f"shard {shard}: sessions of {roles} can't be seen: GRANT pg_read_all_stats to the recovery login")
    if oldest < since:
        return c.Held(shard, f"shard {shard}: a client transaction has been open since {oldest:%Y-%m-%dT%H:%M:%SZ}")
    return Done(shard)


async def _sessions(connection: asyncpg.Connection) -> tuple[datetime, list[str]]:
    """When the oldest open client transaction began (now if there is none), and roles whose sessions can't be seen."""
    now: datetime = (await fetch(connection, "SELECT clock_timestamp()"))[0][0]
    rows = await fetch(connection, _SESSIONS)
    starts = [row["oldest"] for row in rows if row["oldest"] is not None]
    hidden = []
    for role in (row["role"] for row in rows if row["hidden"]):
        seen = await _seen_as(connection, role)
        if seen is None:
            hidden.append(role)
        else:
            starts.extend(seen)
    return min([now, *starts]), hidden


async def _seen_as(connection: asyncpg.Connection, role: str) -> list[datetime] | None:
    """A role sees its own sessions; None where we may not become it."""
    quoted = '"' + role.replace('"', '""') + '"'
    try:
        await execute(connection, f"SET ROLE {quoted}")
    except asyncpg.PostgresError:
        return None
    try:
        rows = await fetch(connection, _SESSIONS)
    finally:
        if not connection.is_closed():
            await execute(connection, "RESET ROLE")
    mine = [row for row in rows if row["role"] == role]
    if any(row["hidden"] for row in mine):
        return None
    return [row["oldest"] for row in mine if row["oldest"] is not None]


async def _replayed(connection: asyncpg.Connection, shard: int) -> c.Reply:
    """Standbys whose position may not be seen (NULL) hold nothing back: docs/commit-protocol.md, Limits."""
    position = (await fetch(connection, "SELECT pg_current_wal_lsn()::text"))[0][0]
    for _ in range(int(REPLAY_TIMEOUT / 0.25)):
        if not (await fetch(connection, _STANDBYS, position))[0][0]:
            return Done(shard)
        await asyncio.sleep(0.25)
    return c.Held(shard, f"a standby of shard {shard} has not replayed its records yet")


async def losses(connection: asyncpg.Connection) -> list[str]:
    """What was written down as lost, and not acknowledged; oldest first."""
    return [f"{row['txn']}: {row['reason']}" for row in await fetch(connection, _LOSSES)]
