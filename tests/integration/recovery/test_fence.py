"""The fence: a coordinator's open transaction that keeps the tombstone waiting for too long is ended, and nothing else ever is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

import handmade
from bench import Bench
from handmade import Handmade
from shardoperator.models.observation import RecoveryReport
from shardproxy.twophase import records


@asynccontextmanager
async def session(bench: Bench, user: str = "app") -> AsyncIterator[asyncpg.Connection]:
    """On the decision shard; it may be ended by others."""
    if user == "superuser":
        connection = await bench.shard(0)
    else:
        connection = await handmade.login(bench, 0, user)
    try:
        yield connection
    finally:
        connection.terminate()


def between_record_and_prepare(one: Handmade) -> str:
    """Step 1's message as far as a coordinator got that was frozen in the middle of it."""
    return records.prepare_message(one.gid(0), one.participants, verb="SELECT 1")


async def passes(bench: Bench, count: int = 2) -> RecoveryReport:
    """The first finds the tombstone waiting; without a grace period the second may fence."""
    controller = bench.recovery()
    for _ in range(count):
        report = await controller.run_pass()
    return report


async def alive(connection: asyncpg.Connection) -> bool:
    try:
        await connection.execute("SELECT 1")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError):
        return False
    return True


async def test_a_frozen_coordinator_is_fenced_after_the_grace_period(trio: Bench) -> None:
    one = Handmade(trio, decision=0)
    await one.prepare(1)
    async with session(trio) as frozen:
        await frozen.execute("BEGIN")
        await frozen.execute(f"INSERT INTO written VALUES ('{one.txn}')")
        await frozen.execute(between_record_and_prepare(one))
        controller = trio.recovery()
        report = await controller.run_pass()
        assert [part.reason for part in report.ours() if one.txn in part.gid] == [
            "its coordinator has written the record on the decision shard and is still at work"
        ]
        assert await alive(frozen), "not before the grace period is over"
        assert controller.fence_due() == 0.0
        await controller.run_pass()
        assert controller.fence_due() is None
        assert not await alive(frozen)
    assert await one.outcome() == ["gone"] * 3
    assert (await one.records())[0] == "abort|recovery"


async def test_one_that_got_its_commit_in_is_committed(trio: Bench) -> None:
    """With last agent: the COMMIT is on its way while the fence is being raised."""
    one = Handmade(trio, decision=0)
    await one.prepare(1)
    async with session(trio) as slow:
        await slow.execute("BEGIN")
        await slow.execute(f"INSERT INTO written VALUES ('{one.txn}')")
        await slow.execute(between_record_and_prepare(one))
        controller = trio.recovery()
        await controller.run_pass()
        await slow.execute("COMMIT")
        await controller.run_pass()
        assert await alive(slow)
    assert (await one.outcome())[:2] == ["committed", "committed"]


async def test_a_prepare_that_waits_has_no_session_to_be_ended(trio: Bench) -> None:
    """The decision shard's part was prepared after it was looked for: the next pass finds it."""
    one = Handmade(trio, decision=0)
    await one.prepare(0, 1)
    async with session(trio, "superuser") as waiting, session(trio, "superuser") as watching:
        await waiting.execute("SET lock_timeout = '2s'")
        task = asyncio.create_task(waiting.execute(records.tombstone(one.txn, 0, 1)))
        sql = f"SELECT count(*) FROM pg_locks WHERE pid = {waiting.get_server_pid()} AND NOT granted"
        async with asyncio.timeout(20):
            while not await watching.fetchval(sql):
                await asyncio.sleep(0.01)
        await watching.execute("SET ROLE app")
        assert await watching.fetch(records.fence(waiting.get_server_pid())) == []
        with pytest.raises(asyncpg.LockNotAvailableError):
            await task
    await trio.recovery().run_pass()
    assert await one.outcome() == ["gone"] * 3


async def test_a_lock_on_the_table_is_not_fenced(trio: Bench) -> None:
    """Not even one that the owner himself holds: somebody's DDL."""
    one = Handmade(trio, decision=0)
    await one.prepare(1)
    await trio.servers[0].psql("GRANT UPDATE ON pgshepherd.commit_record TO app", trio.database)
    try:
        async with session(trio) as ddl:
            await ddl.execute("BEGIN; LOCK TABLE pgshepherd.commit_record IN SHARE MODE")
            report = await passes(trio, 3)
            assert "no open transaction of 'app'" in next(part.reason for part in report.ours() if one.txn in part.gid)
            assert await alive(ddl)
            assert (await one.outcome())[1] == "prepared"
            await ddl.execute("ROLLBACK")
    finally:
        await trio.servers[0].psql("REVOKE UPDATE ON pgshepherd.commit_record FROM app", trio.database)
    await trio.recovery().run_pass()
    assert await one.outcome() == ["gone"] * 3


@pytest.mark.parametrize("user", ["superuser", "mallory"])
async def test_another_roles_session_is_not_fenced(trio: Bench, user: str) -> None:
    one = Handmade(trio, decision=0)
    await one.prepare(1)
    async with session(trio, user) as other:
        await other.execute("BEGIN")
        await other.execute(between_record_and_prepare(one))
        report = await passes(trio, 3)
        assert "no open transaction of 'app'" in next(part.reason for part in report.ours() if one.txn in part.gid)
        assert await alive(other)
        assert (await one.outcome())[1] == "prepared"
        await other.execute("ROLLBACK")
    await trio.recovery().run_pass()
    assert await one.outcome() == ["gone"] * 3


async def test_a_superuser_in_disguise_is_not_fenced(trio: Bench) -> None:
    one = Handmade(trio, decision=0)
    await one.prepare(1)
    async with session(trio, "superuser") as other:
        await other.execute("SET SESSION AUTHORIZATION app")
        await other.execute("BEGIN")
        await other.execute(between_record_and_prepare(one))
        await passes(trio, 3)
        assert await alive(other)
        await other.execute("ROLLBACK")
    await trio.recovery().run_pass()
    assert await one.outcome() == ["gone"] * 3


async def test_two_recoverers_fence_the_same_session(trio: Bench) -> None:
    one = Handmade(trio, decision=0)
    await one.prepare(1)
    async with session(trio) as frozen:
        await frozen.execute("BEGIN")
        await frozen.execute(between_record_and_prepare(one))
        controllers = [trio.recovery() for _ in range(2)]
        async with asyncio.timeout(60):
            while any(part != "gone" for part in await one.outcome()):
                await asyncio.gather(*(controller.run_pass() for controller in controllers))
