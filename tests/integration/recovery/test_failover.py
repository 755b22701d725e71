"""The decision shard fails over to a real standby: with all that it had acknowledged, and with its last seconds lost.

One failover for four transactions, each caught in another state.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

import handmade
from bench import PASSWORD, Bench, Servers, bench
from handmade import Handmade
from shardoperator.standalone.demo.link import FaultLink
from shardoperator.standalone.postgres.server import PostgresServer
from shardproxy.twophase.evidence import TransactionClass
from standby import Standby

EVERYWHERE = (0, 1, 2)


@pytest_asyncio.fixture(loop_scope="session")
async def failing(servers: Servers) -> AsyncIterator[tuple[Bench, Standby, FaultLink]]:
    """Three shards, of which the first has a standby; the link carries its replication."""
    directory, binaries = servers.directory / "failover", servers.servers[0].binaries
    primary = PostgresServer(directory / "primary", binaries, {"max_prepared_transactions": "20", "fsync": "off"})
    standby = Standby(directory / "standby", binaries, dict(primary.settings))
    replication = FaultLink(primary.port)
    try:
        await primary.initialize()
        await primary.start()
        await primary.psql(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")
        await primary.psql(f"CREATE ROLE recovery LOGIN PASSWORD '{PASSWORD}'")
        async with bench(Servers(directory, [primary, *servers.servers[:2]]), 3) as one:
            await one.on_shards(handmade.TABLE)
            await replication.start()
            await standby.follow(primary, replication.port)
            yield one, standby, replication
    finally:
        await replication.close()
        await primary.stop("immediate")
        await standby.stop("immediate")


async def test_the_decision_shard_fails_over(failing: tuple[Bench, Standby, FaultLink]) -> None:
    bench, standby, replication = failing
    primary = bench.servers[0]
    kept, repaired, forgotten, vanished = (Handmade(bench, participants=EVERYWHERE) for _ in range(4))
    for one in (kept, repaired, forgotten):
        await one.prepare(*EVERYWHERE)
    await kept.commit(0)
    await standby.caught_up(primary)

    replication.hold()  # from here on everything that the primary acknowledges will be lost
    await repaired.commit(0, 1)
    await forgotten.commit(0)
    await vanished.prepare(*EVERYWHERE)
    await vanished.commit(0)
    assert await forgotten.outcome() == ["committed", "prepared", "prepared"]
    await primary.crash()
    await standby.promote()
    bench.servers[0] = standby
    assert await repaired.outcome() == ["prepared", "committed", "prepared"]
    assert await vanished.outcome() == ["gone", "prepared", "prepared"]

    first, second = bench.recovery(), bench.recovery()
    losses: list[str] = []
    for _ in range(3):
        for report in (await first.run_pass(), await second.run_pass()):
            losses.extend(report.losses)
    assert await kept.outcome() == ["committed"] * 3, "nothing of it was lost"
    assert await repaired.outcome() == ["committed"] * 3, "the record of another shard has repaired it"
    assert await forgotten.outcome() == ["gone"] * 3
    assert await vanished.outcome() == ["gone"] * 3
    announced = await standby.psql("SELECT txn FROM pgshepherd.audit WHERE action = 'announce' ORDER BY at", bench.database)
    told = {line.replace("-", "") for line in announced.split()}
    assert told == {forgotten.txn, vanished.txn}, "what may have been lost is announced, and nothing else"
    assert {loss.partition(":")[0] for loss in losses} == told
    acted = await standby.psql("SELECT min(at) FROM pgshepherd.audit WHERE action = 'aborted'", bench.database)
    first_announced = await standby.psql("SELECT min(at) FROM pgshepherd.audit WHERE action = 'announce'", bench.database)
    assert first_announced < acted, "before it was acted on"
    report = await bench.recovery().run_pass()
    assert not report.ours()
    assert all(one.transaction_class is TransactionClass.FOREIGN for one in report.transactions)
