"""Finding prepared transactions, and whom they keep waiting."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from shardoperator.shards.connect import fetch
from shardproxy.twophase.gid import Gid, parse

_SCAN = """
SELECT gid, COALESCE(owner, '') AS owner, extract(epoch FROM clock_timestamp() - prepared)::float8 AS age, database,
       to_char(prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS prepared_at,
       age(transaction) AS xid_age, transaction::text AS xid
FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared
"""

_BLOCKED = """
SELECT DISTINCT w.pid, COALESCE(NULLIF(a.application_name, ''), a.usename, '') AS name
FROM pg_locks x
JOIN pg_locks h ON h.granted AND h.pid IS NULL AND h.virtualtransaction = x.virtualtransaction
JOIN pg_locks w ON NOT w.granted AND w.pid IS NOT NULL AND w.locktype = h.locktype
  AND (w.database, w.relation, w.page, w.tuple, w.transactionid, w.classid, w.objid, w.objsubid)
      IS NOT DISTINCT FROM (h.database, h.relation, h.page, h.tuple, h.transactionid, h.classid, h.objid, h.objsubid)
LEFT JOIN pg_stat_activity a ON a.pid = w.pid
WHERE x.locktype = 'transactionid' AND x.granted AND x.pid IS NULL AND x.transactionid = $1::text::xid
ORDER BY 1
"""
"""A prepared transaction has no pid.  Its locks share a virtualtransaction (-1/xid up to 17, a process number of its own in 18), and
one of them is the lock on its own xid."""


@dataclass(frozen=True)
class Sighting:
    """One row of pg_prepared_xacts: a hint, never evidence."""

    shard: int
    gid: str
    parsed: Gid | None
    """None: foreign."""
    owner: str
    prepared_at: str
    """RFC 3339, UTC, by the shard's own clock."""
    age: float
    """Seconds, by the same clock."""
    database: str
    xid_age: int
    xid: str


async def scan(connection: asyncpg.Connection, shard: int) -> list[Sighting]:
    """All prepared transactions of this database, oldest first."""
    rows = await fetch(connection, _SCAN)
    return [
        Sighting(
            shard=shard,
            gid=row["gid"],
            parsed=parse(row["gid"]),
            owner=row["owner"],
            prepared_at=row["prepared_at"],
            age=row["age"],
            database=row["database"],
            xid_age=row["xid_age"],
            xid=row["xid"],
        )
        for row in rows
    ]


async def blocked(connection: asyncpg.Connection, xid: str) -> tuple[str, ...]:
    """The sessions that wait for a lock which the prepared transaction with this xid holds."""
    return tuple(f"pid {row['pid']} ({row['name']})" for row in await fetch(connection, _BLOCKED, xid))
