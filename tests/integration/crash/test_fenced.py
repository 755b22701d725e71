"""A proxy that is frozen between its record and PREPARE or COMMIT on the decision shard: recovery fences it, and the client is told.

One message brings both to the server, so that a trigger on the records holds the server up between the two.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from arena import Arena, Attempt, check
from shardoperator.shards.application import Told
from work import transfer

BOTH = frozenset({0, 1})
TRAP = """
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END';
CREATE TRIGGER hold AFTER INSERT ON pgshepherd.commit_record FOR EACH ROW
WHEN (NEW.outcome = 'commit' AND NEW.shard = NEW.decision_shard) EXECUTE FUNCTION hold();
"""
HELD = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@asynccontextmanager
async def held_between_record_and_end(arena: Arena) -> AsyncIterator[list[asyncpg.Connection]]:
    """Every decision shard stops behind its record until these sessions let go."""
    await arena.bench.on_shards(TRAP)
    holders = [await arena.bench.shard(number) for number in BOTH]
    try:
        for holder in holders:
            await holder.execute("SELECT pg_advisory_lock(42)")
        yield holders
    finally:
        for holder in holders:
            await holder.close()
        await arena.bench.on_shards("DROP FUNCTION hold CASCADE")


async def frozen(arena: Arena, attempt: Attempt) -> tuple[asyncpg.Connection, asyncio.Task[None]]:
    """A proxy that is stopped while its decision shard is between the two."""
    client = await arena.start()
    task = asyncio.create_task(attempt.run(client, transfer(*arena.keys)))
    async with asyncio.timeout(20):
        while sum(await arena.parts()) != 1 or not any(int(count) for count in await arena.bench.on_shards(HELD)):
            await asyncio.sleep(0.01)
    assert arena.pid is not None
    os.kill(arena.pid, signal.SIGSTOP)
    return client, task


async def test_it_is_fenced_and_the_client_is_told_that_nothing_was_committed(patient: Arena) -> None:
    foreign, attempt = await patient.foreign(), Attempt()
    async with held_between_record_and_end(patient):
        client, task = await frozen(patient, attempt)
        await patient.recover(2)
        assert patient.pid is not None
        os.kill(patient.pid, signal.SIGCONT)
        async with asyncio.timeout(30):
            await task
    assert attempt.sqlstate == "08006", attempt
    assert "nothing was committed" in attempt.message
    attempt.told = Told.FAILED
    again = Attempt()
    await again.run(client, transfer(*patient.keys))
    assert again.told is Told.COMMITTED, "the proxy goes on"
    client.terminate()
    await patient.kill()
    assert await check(patient, attempt, BOTH, foreign) == frozenset()
    assert await patient.found(again) == BOTH


async def test_last_agents_commit_is_fenced_too(last_two: Arena) -> None:
    """Its session on the decision shard is gone, and so is the record: when the proxy wakes, it finds the tombstone."""
    foreign, attempt = await last_two.foreign(), Attempt()
    async with held_between_record_and_end(last_two):
        client, task = await frozen(last_two, attempt)
        await last_two.recover(2)
        assert last_two.pid is not None
        os.kill(last_two.pid, signal.SIGCONT)
        async with asyncio.timeout(30):
            await task
    assert (attempt.told, attempt.sqlstate) == (Told.FAILED, "40001"), attempt
    client.terminate()
    await last_two.kill()
    assert await check(last_two, attempt, BOTH, foreign) == frozenset()


async def test_the_proxy_ends_its_own_session(last_two: Arena) -> None:
    """Last agent's COMMIT does not answer in time: the tombstone waits for it, so the proxy fences it, without recovery."""
    foreign, attempt = await last_two.foreign(), Attempt()
    client = await last_two.start()
    async with held_between_record_and_end(last_two):
        async with asyncio.timeout(30):
            await attempt.run(client, transfer(*last_two.keys))
        assert (attempt.told, attempt.sqlstate) == (Told.FAILED, "40001"), (attempt, last_two.bench.log()[-2000:])
    async with asyncio.timeout(30):
        while any(await last_two.parts()):
            await asyncio.sleep(0.02)
    client.terminate()
    await last_two.kill()
    assert await check(last_two, attempt, BOTH, foreign) == frozenset()


async def test_one_that_wakes_in_time_is_not_fenced(patient: Arena) -> None:
    """Within the grace period the tombstone only waits."""
    foreign, attempt = await patient.foreign(), Attempt()
    async with held_between_record_and_end(patient) as holders:
        client, task = await frozen(patient, attempt)
        controller = patient.bench.recovery(grace=0.0)
        await controller.run_pass()
        assert controller.fence_due() is not None
        assert patient.pid is not None
        os.kill(patient.pid, signal.SIGCONT)
        for holder in holders:
            await holder.execute("SELECT pg_advisory_unlock(42)")
        async with asyncio.timeout(30):
            await task
    assert attempt.told is Told.COMMITTED, attempt
    client.terminate()
    await patient.kill()
    await patient.recover(1)
    assert await check(patient, attempt, BOTH, foreign) == BOTH
