"""Recovery on real servers: what it resolves, what it leaves alone, and what it says of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

import arena
import handmade
from bench import Bench
from handmade import Handmade, bad_crc
from shardoperator.models.observation import PreparedTransaction, RecoveryReport
from shardoperator.recovery.controller import RecoveryController
from shardproxy.twophase import records
from shardproxy.twophase.evidence import TransactionClass

ALL = (0, 1, 2)


def of(report: RecoveryReport, one: Handmade) -> list[PreparedTransaction]:
    """What the report says of one transaction."""
    return [part for part in report.transactions if one.txn in part.gid]


def classes(report: RecoveryReport, one: Handmade) -> set[TransactionClass]:
    return {part.transaction_class for part in of(report, one)}


async def roll_back(one: Handmade) -> None:
    """Clean up after a test that leaves parts prepared."""
    for server in one.bench.servers:
        gids = await server.psql(f"SELECT gid FROM pg_prepared_xacts WHERE gid LIKE '%{one.txn}%'", one.bench.database)
        for gid in gids.split():
            await server.psql(f"ROLLBACK PREPARED '{gid}'", one.bench.database)


async def test_committed_by_the_decision_shards_record(trio: Bench) -> None:
    one = Handmade(trio, decision=1, participants=ALL)
    await one.prepare(*ALL)
    await one.commit(1)
    report = await trio.recovery().run_pass()
    assert await one.outcome() == ["committed"] * 3
    assert len(report.actions) == 2


async def test_undecided_is_rolled_back(trio: Bench) -> None:
    one = Handmade(trio, decision=2, participants=ALL)
    await one.prepare(*ALL)
    await trio.recovery().run_pass()
    assert await one.outcome() == ["gone"] * 3
    assert await one.records() == ["", "", ""]


async def test_many_at_once_by_three_recoverers(trio: Bench) -> None:
    committed = [Handmade(trio, decision=number % 3, participants=ALL) for number in range(6)]
    aborted = [Handmade(trio, decision=number % 3, participants=ALL) for number in range(6)]
    for one in (*committed, *aborted):
        await one.prepare(*ALL)
    for one in committed:
        await one.commit(one.decision)
    controllers = [trio.recovery() for _ in range(3)]
    async with asyncio.timeout(60):
        while await trio.prepared():
            await asyncio.gather(*(controller.run_pass() for controller in controllers))
    assert [await one.outcome() for one in committed] == [["committed"] * 3] * 6
    assert [await one.outcome() for one in aborted] == [["gone"] * 3] * 6


async def test_a_late_prepare_is_an_orphan(trio: Bench) -> None:
    """Its decision shard has never heard of it: the tombstone makes sure that it never will."""
    one = Handmade(trio, decision=0)
    await one.prepare(1)
    await trio.recovery().run_pass()
    assert (await one.outcome())[1] == "gone"
    assert (await one.records())[0] == "abort|recovery"
    with pytest.raises(Exception, match="commit_record_pkey"):
        await one.prepare(0)
    await one.prepare(1)  # later still
    await trio.recovery().run_pass()
    assert (await one.outcome())[:2] == ["gone", "gone"]


async def test_a_coordinator_between_record_and_prepare_is_waited_for(trio: Bench) -> None:
    one = Handmade(trio, decision=0)
    await one.prepare(1)
    coordinator = await handmade.login(trio, 0)
    text = records.prepare_message(one.gid(0), one.participants)
    await coordinator.execute(f"BEGIN; INSERT INTO written VALUES ('{one.txn}'); " + text.rpartition("; ")[0])
    report = await trio.recovery().run_pass()
    assert classes(report, one) == {TransactionClass.IN_DOUBT}
    assert "still at work" in of(report, one)[0].reason
    await coordinator.execute(records.prepare(one.gid(0).text))
    await coordinator.execute(records.commit_prepared(one.gid(0).text))
    await coordinator.close()
    await trio.recovery().run_pass()
    assert (await one.outcome())[:2] == ["committed", "committed"]


async def test_foreign_is_counted_and_never_touched(trio: Bench) -> None:
    one = Handmade(trio)
    names = (
        *arena.FOREIGN,
        bad_crc(one.gid(0)),
        one.gid(0).text.upper(),
        one.gid(1).text,  # a copy: names shard 1, found on shard 0
        replace(one.gid(0), cluster="00c0ffee00c0ffee").text,
    )
    for number, name in enumerate(names):
        quoted = name.replace("'", "''")
        await trio.servers[0].psql(f"BEGIN; CREATE TABLE foreign_{number} (); PREPARE TRANSACTION '{quoted}'", trio.database)
    elsewhere = f"elsewhere_{one.txn}"
    await trio.servers[0].psql(f"BEGIN; CREATE TABLE {elsewhere} (); PREPARE TRANSACTION '{elsewhere}'")
    try:
        for _ in range(2):
            report = await trio.recovery().run_pass()
            assert not report.actions
            assert {part.gid for part in report.transactions} == set(names), "another database's are not ours to look at"
            assert {part.transaction_class for part in report.transactions} == {TransactionClass.FOREIGN}
        reasons = {part.gid: part.reason for part in report.transactions}
        assert "a copy" in reasons[one.gid(1).text]
        assert "00c0ffee00c0ffee" in reasons[replace(one.gid(0), cluster="00c0ffee00c0ffee").text]
    finally:
        connection = await trio.shard(0)
        for name in names:
            await connection.execute("ROLLBACK PREPARED '" + name.replace("'", "''") + "'")
        await connection.close()
        await trio.servers[0].psql(f"ROLLBACK PREPARED '{elsewhere}'")


async def _forge_record(one: Handmade, shard: int, user: str = "mallory") -> None:
    connection = await handmade.login(one.bench, shard, user)
    await connection.execute(
        "INSERT INTO pgshepherd.commit_record (txn, shard, decision_shard, epoch, participants) "
        f"VALUES ('{one.txn}', {shard}, {one.decision}, 1, '{{0,1}}')"
    )
    await connection.close()


async def test_a_forged_record_commits_nothing(trio: Bench) -> None:
    one = Handmade(trio, decision=0)
    await one.prepare(1)
    await _forge_record(one, 0)
    report = await trio.recovery().run_pass()
    assert classes(report, one) == {TransactionClass.IN_DOUBT}
    assert "mallory" in of(report, one)[0].reason
    assert (await one.outcome())[1] == "prepared"
    await roll_back(one)


async def test_a_forger_who_prepares_as_well_commits_nothing(trio: Bench) -> None:
    """A part of mallory's under the same transaction does not make her record count for the part of somebody else."""
    one = Handmade(trio, decision=0, participants=ALL)
    await one.prepare(1)
    await _forge_record(one, 0)
    await Handmade(trio, decision=0, user="mallory", txn=one.txn, participants=ALL).prepare(2)
    report = await trio.recovery().run_pass()
    assert TransactionClass.IN_DOUBT in classes(report, one)
    assert (await one.outcome())[1] == "prepared"
    await roll_back(one)


async def test_a_forged_part_does_not_change_who_decides(trio: Bench) -> None:
    """It names another decision shard, and is found first; the real transaction is still decided by its own."""
    one = Handmade(trio, decision=1, participants=(1, 2))
    await Handmade(trio, decision=2, user="mallory", txn=one.txn, participants=ALL).prepare(0)
    await one.prepare(1, 2)
    report = await trio.recovery(resolve=False).run_pass()
    real = [part for part in of(report, one) if part.owner == "app"]
    assert [part.shard for part in real] == [1, 2]
    assert all("still prepared on its decision shard 1" in part.reason for part in real)
    await trio.recovery().run_pass()
    assert await one.outcome() == ["prepared", "gone", "gone"]
    await roll_back(one)


async def test_an_unreachable_decision_shard_stops_everything(trio: Bench) -> None:
    one = Handmade(trio, decision=0)
    await one.prepare(0, 1)
    trio.links[0].refusing = True
    report = await trio.recovery(direct=False).run_pass()
    assert [number for number, _ in report.failed] == [0], "could not look is never reported as healthy"
    assert report.scanned == {1, 2}
    assert classes(report, one) == {TransactionClass.UNREACHABLE}
    assert not report.actions
    assert (await one.outcome())[:2] == ["prepared", "prepared"]
    trio.links[0].heal()
    await trio.recovery(direct=False).run_pass()
    assert (await one.outcome())[:2] == ["gone", "gone"]


async def test_a_silent_decision_shard_stops_everything(trio: Bench) -> None:
    one = Handmade(trio, decision=0)
    await one.prepare(0, 1)
    trio.links[0].hold()
    report = await trio.recovery(direct=False).run_pass()
    assert [number for number, _ in report.failed] == [0]
    assert classes(report, one) == {TransactionClass.UNREACHABLE}
    trio.links[0].heal()
    trio.links[0].cut()
    assert (await one.outcome())[:2] == ["prepared", "prepared"]
    await roll_back(one)


async def test_a_decision_shard_without_a_dsn_is_not_reached(trio: Bench) -> None:
    one = Handmade(trio, decision=0)
    await one.prepare(0, 1)
    controller = RecoveryController(trio.cluster_id, trio.targets()[1:], frozenset(ALL), grace=0.0)
    report = await controller.run_pass()
    assert classes(report, one) == {TransactionClass.UNREACHABLE}
    assert (await one.outcome())[:2] == ["prepared", "prepared"]
    await roll_back(one)


async def test_a_missing_grant_is_named(trio: Bench) -> None:
    one = Handmade(trio, decision=0, user="mallory")
    await one.prepare(0, 1)
    report = await trio.recovery().run_pass()
    assert 'GRANT "mallory" TO' in of(report, one)[0].reason
    assert (await one.outcome())[:2] == ["prepared", "prepared"]
    other = Handmade(trio, decision=2)
    await other.prepare(0, 2)
    await trio.recovery().run_pass()
    assert await other.outcome() == ["gone"] * 3, "one that can't be resolved holds up no other"
    await roll_back(one)


async def test_observing_touches_nothing(trio: Bench) -> None:
    committed, undecided, orphan = Handmade(trio), Handmade(trio), Handmade(trio)
    await committed.prepare(0, 1)
    await committed.commit(0)
    await undecided.prepare(0, 1)
    await orphan.prepare(1)
    sql = "SELECT (SELECT count(*) FROM pgshepherd.audit), (SELECT array_agg(r ORDER BY r) FROM pgshepherd.commit_record r)"
    before = [await trio.prepared(), await trio.on_shards(sql)]
    report = await trio.recovery(resolve=False).run_pass()
    assert [await trio.prepared(), await trio.on_shards(sql)] == before
    assert classes(report, committed) == {TransactionClass.COMMITTED}
    assert classes(report, undecided) == classes(report, orphan) == {TransactionClass.ABORTED}
    await trio.recovery().run_pass()
    assert not await trio.prepared()


async def test_a_server_that_goes_down_is_a_failed_scan(trio: Bench) -> None:
    """The server ends the sessions of a pass with 57P01: an error of that shard, not of the whole pass."""
    one = Handmade(trio, decision=1, participants=(0, 1))
    await one.prepare(0, 1)
    killer = await trio.shard(1)
    sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'recovery' AND datname = current_database()"

    async def terminate() -> None:
        async with asyncio.timeout(30):
            while not await killer.fetch(sql):
                await asyncio.sleep(0)

    controller = trio.recovery()
    for _ in range(5):
        report, _ = await asyncio.gather(controller.run_pass(), terminate())
        assert report.scanned | {number for number, _ in report.failed} == set(ALL)
    await killer.close()
    await trio.recovery().run_pass()
    assert (await one.outcome())[:2] == ["gone", "gone"]
