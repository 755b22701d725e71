"""Last agent's COMMIT was lost: the tombstone that keeps it out, and the fence that ends its session.

Invariant: only a session of our own user whose open transaction the tombstone itself waits for is ended.
"""

from __future__ import annotations

import asyncio

from shardproxy.backend.connection import ServerConnection
from shardproxy.twophase import messages as m
from shardproxy.twophase import records

PAUSE = 0.05
"""Seconds between two looks at what the tombstone waits for."""


async def tombstone(
    connection: ServerConnection, command: m.WriteTombstone | m.Fence, timeout: float, wait: str = records.TOMBSTONE_WAIT
) -> m.Reply:
    """On the connection that was asked; raises LinkLost."""
    shard = command.shard
    result = await connection.query(records.limited_tombstone(command.txn, shard, command.epoch, wait), timeout)
    if result.error is not None:
        blocked = result.error.sqlstate == "55P03"
        return m.Blocked(shard) if blocked else m.Failed(shard, result.error.sqlstate, result.error.message)
    return m.Done(shard) if result.tag == "INSERT 0 1" else m.NotInserted(shard)


async def fence(waiting: ServerConnection, watching: ServerConnection, command: m.Fence, timeout: float) -> m.Reply:
    """The tombstone waits in the first session while the second, of the user himself, ends what it waits for; raises LinkLost."""
    task = asyncio.create_task(tombstone(waiting, command, timeout, records.FENCED_WAIT))
    try:
        while not task.done():
            await watching.query(records.fence(waiting.pid), timeout)
            await asyncio.wait({task}, timeout=PAUSE)
    finally:
        await asyncio.gather(task, return_exceptions=True)
    reply = task.result()
    return reply if isinstance(reply, m.Blocked | m.Failed) else m.Done(command.shard)
