"""The tombstone on one shard, and the fence: what keeps it waiting for too long is ended.

Invariant: only a session of the prepared transaction's owner whose open transaction the tombstone itself waits for is ended; a lock
on the table, another role's session and a prepared transaction are left alone.
"""

from __future__ import annotations

import asyncio

import asyncpg

from shardoperator.shards.connect import become, execute, fetch
from shardproxy.twophase import messages as m
from shardproxy.twophase import records

PAUSE = 0.05
"""Seconds between two looks at what it waits for."""


async def tombstone(
    connection: asyncpg.Connection, command: m.WriteTombstone | m.Fence, wait: str = records.TOMBSTONE_WAIT
) -> m.Reply:
    """Raises ShardError or asyncpg.PostgresError."""
    shard = command.shard
    try:
        tag = await execute(connection, records.limited_tombstone(command.txn, shard, command.epoch, wait))
    except asyncpg.LockNotAvailableError:
        return m.Blocked(shard)
    return m.Done(shard) if tag == "INSERT 0 1" else m.NotInserted(shard)


async def fence(waiting: asyncpg.Connection, watching: asyncpg.Connection, command: m.Fence) -> m.Reply:
    """Both sessions are on the same server; the tombstone waits in the first one while the second ends what it waits for."""
    pid = waiting.get_server_pid()
    async with become(watching, command.owner):
        task = asyncio.create_task(tombstone(waiting, command, records.FENCED_WAIT))
        try:
            while not task.done():
                await fetch(watching, records.fence(pid))
                await asyncio.wait({task}, timeout=PAUSE)
        finally:
            await asyncio.gather(task, return_exceptions=True)
    reply = task.result()
    return reply if isinstance(reply, m.Blocked) else m.Done(command.shard)
