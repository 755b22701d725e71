"""A synchronous standby that is gone, and somebody who cancels the wait for it: "committed locally" is not committed.

The standby is only named, never there, so every commit on that shard waits, until the name is taken away again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio

import points
from arena import Arena, Attempt, violations
from bench import PASSWORD, Servers, bench
from shardoperator.shards.application import Told
from shardoperator.standalone.demo.link import When
from shardoperator.standalone.postgres.server import PostgresServer
from warm import Warm
from work import transfer

BOTH = frozenset({0, 1})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def waiting(servers: Servers, warm: Warm) -> AsyncIterator[Arena]:
    """Two shards; the first is on a server of its own."""
    directory = servers.directory / "synchronous"
    own = PostgresServer(directory, servers.servers[0].binaries, {"max_prepared_transactions": "20", "fsync": "off"})
    try:
        await own.initialize()
        await own.start()
        for role in ("app", "recovery"):
            await own.psql(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        async with bench(Servers(directory, [own, servers.servers[0]]), 2) as one:
            arena = await Arena.build(one, warm, resolution_timeout=1500, finish_timeout=800)
            try:
                yield arena
            finally:
                await _standby(arena, "")
                await arena.close()
    finally:
        await own.stop("immediate")


async def _standby(arena: Arena, name: str) -> None:
    """Name a synchronous standby, or none, and wait until every new transaction knows."""
    own = arena.bench.servers[0]
    await own.psql(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    await own.psql("SELECT pg_reload_conf()")
    async with asyncio.timeout(20):
        while await own.psql("SHOW synchronous_standby_names") != name:
            await asyncio.sleep(0.02)


async def _cancel_the_wait(arena: Arena, statement: str) -> None:
    """As an impatient administrator does."""
    sql = f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%{statement}%'"
    async with asyncio.timeout(20):
        while not await arena.bench.servers[0].psql(sql):
            await asyncio.sleep(0.02)


async def _resolved(arena: Arena, attempt: Attempt, client: asyncpg.Connection) -> frozenset[int]:
    """By the proxy itself."""
    async with asyncio.timeout(30):
        while any(await arena.parts()):
            await asyncio.sleep(0.02)
    found = await arena.found(attempt)
    assert violations(attempt.told, BOTH, found) == []
    client.terminate()
    await arena.kill()
    return found


async def test_a_prepare_that_is_not_replicated_is_an_abort(waiting: Arena) -> None:
    client = await waiting.start()
    await _standby(waiting, "gone")
    attempt = Attempt()
    task = asyncio.create_task(attempt.run(client, transfer(*waiting.keys)))
    await _cancel_the_wait(waiting, "PREPARE TRANSACTION")
    await _cancel_the_wait(waiting, "ROLLBACK PREPARED")
    await task
    assert (attempt.told, attempt.sqlstate) == (Told.FAILED, "40000"), attempt
    assert "could not replicate" in attempt.message
    await _standby(waiting, "")
    assert await _resolved(waiting, attempt, client) == frozenset()


async def _until_it_decides(arena: Arena, wanted: bool) -> tuple[Attempt, asyncio.Task[None], asyncpg.Connection]:
    """Start transactions until one has reached its decision on the first shard, or on the second; it is held there."""
    for _ in range(40):
        client = await arena.start()
        traps = points.DECIDE.traps(arena.bench.links, When.BEFORE)
        attempt = Attempt()
        task = asyncio.create_task(attempt.run(client, transfer(*arena.keys)))
        hits = [asyncio.create_task(trap.hit.wait()) for trap in traps]
        await asyncio.wait(hits, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        for hit in hits:
            hit.cancel()
        if traps[0].hit.is_set() is wanted:
            return attempt, task, client
        await arena.kill()
        await task
        client.terminate()
        await arena.recover(1)
    raise AssertionError("the decision is not spread over the shards")


async def test_a_decision_that_is_not_replicated_is_not_told(waiting: Arena) -> None:
    """Its wait was cancelled: no step 4, and 08007 for the client, until a later write on the shard is confirmed."""
    attempt, task, client = await _until_it_decides(waiting, wanted=True)
    await _standby(waiting, "gone")
    for link in waiting.bench.links:
        link.heal()
    await _cancel_the_wait(waiting, "COMMIT PREPARED")
    await task
    assert (attempt.told, attempt.sqlstate) == (Told.NOTHING, "08007"), attempt
    assert await waiting.parts() == [0, 1], "the other shard was not told"
    report = await waiting.bench.recovery(resolve=False).run_pass()
    assert report.ours()
    await _standby(waiting, "")
    assert await _resolved(waiting, attempt, client) == BOTH


async def test_a_finish_that_is_not_replicated_goes_on_behind_the_commit(waiting: Arena) -> None:
    attempt, task, client = await _until_it_decides(waiting, wanted=False)
    await _standby(waiting, "gone")
    for link in waiting.bench.links:
        link.heal()
    await _cancel_the_wait(waiting, "COMMIT PREPARED")
    await task
    assert attempt.told is Told.COMMITTED, attempt
    await _standby(waiting, "")
    assert await _resolved(waiting, attempt, client) == BOTH
