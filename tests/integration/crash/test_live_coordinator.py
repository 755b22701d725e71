"""Recovery while the coordinator lives: frozen, or slow.  Exactly one of the two wins, and the client is told which."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import points
from arena import Arena, Attempt, check
from points import Point
from shardoperator.shards.application import Told
from shardoperator.standalone.demo.link import When, containing
from work import transfer

BOTH = frozenset({0, 1})


@asynccontextmanager
async def caught(arena: Arena, point: Point, when: When) -> AsyncIterator[tuple[Attempt, asyncio.Task[None]]]:
    """A transaction that is held at the message; at the end everything is let go."""
    client = await arena.start()
    traps = point.traps(arena.bench.links, when)
    attempt = Attempt()
    task = asyncio.create_task(attempt.run(client, transfer(*arena.keys)))
    hits = [asyncio.create_task(trap.hit.wait()) for trap in traps]
    done, _ = await asyncio.wait({task, *hits}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    assert done, f"{point} was never seen"
    assert task not in done, attempt
    for hit in hits:
        hit.cancel()
    yield attempt, task
    async with asyncio.timeout(40):
        await task
    client.terminate()
    await arena.kill()


async def _finished(arena: Arena) -> None:
    async with asyncio.timeout(30):
        while any(await arena.parts()):
            await asyncio.sleep(0.02)


async def test_frozen_before_the_decision(patient: Arena) -> None:
    """SIGSTOP after both have prepared; recovery aborts; on SIGCONT the coordinator decides, finds its part gone, and asks."""
    foreign = await patient.foreign()
    async with caught(
        patient, Point("all-prepared", points.TO_CLIENT, points.tag("PREPARE TRANSACTION"), nth=2), When.BEFORE
    ) as (
        attempt,
        task,
    ):
        assert patient.pid is not None
        os.kill(patient.pid, signal.SIGSTOP)
        for link in patient.bench.links:
            link.heal()
        await patient.recover(2)
        os.kill(patient.pid, signal.SIGCONT)
        await task
        assert (attempt.told, attempt.sqlstate) == (Told.FAILED, "40001"), attempt
    assert await check(patient, attempt, BOTH, foreign) == frozenset()


async def test_frozen_between_decision_and_finish(patient: Arena) -> None:
    """Recovery commits the rest; the coordinator finds it done, by the record and not by 42704."""
    foreign = await patient.foreign()
    async with caught(patient, points.DECIDED, When.BEFORE) as (attempt, task):
        assert patient.pid is not None
        os.kill(patient.pid, signal.SIGSTOP)
        for link in patient.bench.links:
            link.heal()
        await patient.recover(2)
        os.kill(patient.pid, signal.SIGCONT)
        await task
        assert attempt.told is Told.COMMITTED, attempt
    assert await check(patient, attempt, BOTH, foreign) == BOTH


@pytest.mark.parametrize("shard", [0, 1])
async def test_a_coordinator_that_comes_too_late(patient: Arena, shard: int) -> None:
    """One shard has prepared, the message to the other is on its way; recovery aborts; then the message arrives.

    Where the late one is the decision shard, its record meets the tombstone; else the decision finds its part gone.
    """
    foreign = await patient.foreign()
    late = Point("prepare", points.TO_SERVER, containing("PREPARE TRANSACTION", "Q"), shard)
    async with caught(patient, late, When.BEFORE) as (attempt, task):
        async with asyncio.timeout(20):
            while sum(await patient.parts()) != 1:
                await asyncio.sleep(0.01)
        await patient.recover(2)
        for link in patient.bench.links:
            link.heal()
        await task
        assert (attempt.told, attempt.sqlstate) == (Told.FAILED, "40001"), attempt
        await _finished(patient)
    assert await check(patient, attempt, BOTH, foreign) == frozenset()


async def test_both_at_the_same_moment(patient: Arena) -> None:
    """Recovery without any grace against transactions that nobody disturbs: each ends one way, and its client knows which."""
    clients = [await patient.start(), *[await patient.client() for _ in range(3)]]
    stop = asyncio.Event()

    async def recover() -> None:
        controller = patient.bench.recovery()
        while not stop.is_set():
            await controller.run_pass()

    recoverers = [asyncio.create_task(recover()) for _ in range(2)]
    attempts = []
    for _ in range(12):
        for client in clients[:1]:
            attempt = Attempt()
            await attempt.run(client, transfer(*patient.keys))
            found = await patient.found(attempt)
            assert attempt.told in (Told.COMMITTED, Told.FAILED), attempt
            assert found == (BOTH if attempt.told is Told.COMMITTED else frozenset()), attempt
            attempts.append(attempt)
    stop.set()
    await asyncio.gather(*recoverers)
    for client in clients:
        await client.close()
    assert {attempt.sqlstate for attempt in attempts} <= {"", "40001"}
    await patient.kill()


APP = {
    "synchronous_commit": "off",
    "client_min_messages": "error",
    "default_transaction_isolation": "serializable",
    "role": "app_in_disguise",
    "search_path": "public, pg_temp",
    "lock_timeout": "20s",
    "statement_timeout": "20s",
}
RECOVERY = {
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "search_path": "nowhere",
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "synchronous_commit": "off",
    "client_min_messages": "error",
    "role": "app_in_disguise",
}


async def _settings(arena: Arena, role: str, settings: dict[str, str], *, reset: bool = False) -> None:
    for name, value in settings.items():
        text = value if name == "search_path" else f"'{value}'"
        verb = f"RESET {name}" if reset else f"SET {name} = {text}"
        await arena.bench.on_shards(f"ALTER ROLE {role} IN DATABASE {arena.bench.database} {verb}")


@pytest.mark.parametrize(("point", "decided"), [(points.DECIDE, False), (points.FINISH, True)], ids=str)
async def test_hostile_settings_of_roles(patient: Arena, point: Point, decided: bool) -> None:
    """Nothing that an administrator sets for a role changes what becomes of a transaction."""
    exists = "SELECT count(*) FROM pg_roles WHERE rolname = 'app_in_disguise'"
    for server in patient.bench.servers:
        if await server.psql(exists) == "0":
            await server.psql("CREATE ROLE app_in_disguise; GRANT app_in_disguise TO app, recovery")
    await patient.bench.on_shards("GRANT ALL ON ALL TABLES IN SCHEMA public TO app_in_disguise")
    await _settings(patient, "app", APP)
    await _settings(patient, "recovery", RECOVERY)
    foreign = await patient.foreign()
    try:
        client = await patient.start()
        undisturbed = Attempt()
        async with asyncio.timeout(20):
            await undisturbed.run(client, transfer(*patient.keys))
        assert undisturbed.told is Told.COMMITTED, (undisturbed, patient.bench.log()[-2000:])
        assert await patient.found(undisturbed) == BOTH
        client.terminate()
        await patient.kill()
        async with caught(patient, point, When.BEFORE) as (attempt, _):
            await patient.kill()
        await patient.recover(2)
        assert await check(patient, attempt, BOTH, foreign) == (BOTH if decided else frozenset())
    finally:
        await _settings(patient, "app", APP, reset=True)
        await _settings(patient, "recovery", RECOVERY, reset=True)
