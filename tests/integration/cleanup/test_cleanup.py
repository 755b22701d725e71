"""Clean-up by epochs on real servers: what goes, what holds it back, and what it finds out."""

from __future__ import annotations

import asyncio

import asyncpg

from bench import PASSWORD, Bench, accounts_on
from shardoperator.recovery.controller import RecoveryController
from shardoperator.shards.link import ShardLink
from shardproxy.twophase.cleanup import Cleaner
from shardproxy.twophase.cleanup_messages import Held, Retire
from shardproxy.twophase.gid import Gid
from shardproxy.twophase.messages import Connect, Connected

RECORDS = "SELECT count(*) FROM pgshepherd.commit_record WHERE outcome = 'commit'"
RETENTION = 0.05


def cleaner(bench: Bench) -> RecoveryController:
    controller = bench.recovery()
    controller.cleanup.retention = RETENTION
    return controller


async def rounds(bench: Bench, controller: RecoveryController, count: int = 6) -> list[Cleaner]:
    """So many that everything that may go has gone: an epoch is retired two raises later."""
    done: list[Cleaner] = []
    for _ in range(count):
        await asyncio.sleep(RETENTION * 1.5)
        done = await controller.cleanup.run(bench.targets(), frozenset(range(len(bench.servers))))
    return done


async def transfer(bench: Bench, count: int = 3) -> None:
    (source,), (target,) = accounts_on(2)
    client = await bench.client()
    for account in (source, target):
        await client.execute("INSERT INTO accounts VALUES ($1, 100) ON CONFLICT DO NOTHING", account)
    for _ in range(count):
        async with client.transaction():
            await client.execute("UPDATE accounts SET balance = balance - 1 WHERE customer_id = $1", source)
            await client.execute("UPDATE accounts SET balance = balance + 1 WHERE customer_id = $1", target)
    await client.close()


async def records(bench: Bench) -> int:
    return sum(int(count) for count in await bench.on_shards(RECORDS))


async def test_records_go_and_coordinators_go_on(shop: Bench) -> None:
    await transfer(shop, 6)
    assert await records(shop) >= 12
    controller = cleaner(shop)
    done = await rounds(shop, controller)
    assert not controller.cleanup.held
    assert [each.losses for each in done] == [[], []]
    assert await records(shop) == 0
    assert all(int(retired) > 0 for retired in await shop.on_shards("SELECT retired FROM pgshepherd.shard"))

    client = await shop.client()
    codes = []
    for _ in range(3):  # the proxy's epochs are stale now: clean aborts, after which it knows better
        try:
            await client.execute("UPDATE accounts SET balance = balance + 0")
        except asyncpg.PostgresError as error:
            codes.append(getattr(error, "sqlstate", repr(error)))
    await client.close()
    assert codes in ([], ["40001"], ["40001", "40001"]), codes
    assert await records(shop) >= 2


async def test_a_prepared_transaction_of_the_epoch_holds_it(shop: Bench) -> None:
    await transfer(shop)
    gid = Gid(shop.cluster_id, "f" * 32, 1, 1, 1, 0, 1).text
    await shop.servers[1].psql(f"BEGIN; CREATE TABLE late (); PREPARE TRANSACTION '{gid}'", shop.database)
    controller = cleaner(shop)
    await rounds(shop, controller)
    assert "still prepared on shard 1" in controller.cleanup.held[0]
    assert await shop.servers[0].psql("SELECT retired FROM pgshepherd.shard", shop.database) == "0"
    assert await shop.servers[0].psql(RECORDS, shop.database) != "0"
    await shop.servers[1].psql(f"ROLLBACK PREPARED '{gid}'", shop.database)
    await rounds(shop, controller)
    assert not controller.cleanup.held
    assert await records(shop) == 0


async def test_a_commit_recorded_meanwhile_holds_it(shop: Bench) -> None:
    """Else the others' records would go while this one stays, and look like a loss when its turn comes."""
    await transfer(shop, 6)
    await shop.servers[0].psql("UPDATE pgshepherd.shard SET epoch = epoch + 2", shop.database)
    link = ShardLink(shop.targets()[0], shop.cluster_id, {})
    connected = await link.clean(Connect(0), RETENTION)
    assert isinstance(connected, Connected)
    before = await shop.servers[0].psql(RECORDS, shop.database)
    reply = await link.clean(Retire(0, 1, ("f" * 32,), connected.timeline), RETENTION)
    link.close()
    assert isinstance(reply, Held)
    assert "recorded meanwhile" in reply.reason
    assert await shop.servers[0].psql("SELECT retired FROM pgshepherd.shard", shop.database) == "0"
    assert await shop.servers[0].psql(RECORDS, shop.database) == before


async def test_an_old_client_transaction_holds_it(shop: Bench) -> None:
    await transfer(shop)
    old = await asyncpg.connect(shop.servers[0].dsn(shop.database, "app", PASSWORD), timeout=10)
    await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    controller = cleaner(shop)
    await rounds(shop, controller)
    assert "a client transaction has been open since" in controller.cleanup.held[0]
    assert await shop.servers[0].psql("SELECT retired FROM pgshepherd.shard", shop.database) == "0"
    await old.execute("ROLLBACK")
    await rounds(shop, controller)
    assert not controller.cleanup.held
    await old.close()


async def test_sessions_that_can_not_be_seen_count_as_open(shop: Bench) -> None:
    superuser = await shop.shard(0)
    await superuser.execute("SELECT 1")
    controller = cleaner(shop)
    await rounds(shop, controller)
    assert "GRANT pg_read_all_stats" in controller.cleanup.held[0]
    await superuser.close()


async def test_a_member_that_is_away_holds_it(shop: Bench) -> None:
    await transfer(shop)
    controller = cleaner(shop)
    for _ in range(5):
        await asyncio.sleep(RETENTION * 1.5)
        await controller.cleanup.run(shop.targets()[:1], frozenset({0, 1}))
    assert "not reached: 1" in controller.cleanup.held[0]
    assert await shop.servers[0].psql("SELECT retired FROM pgshepherd.shard", shop.database) == "0"


async def test_a_participant_that_lost_its_part_is_found_and_told_once(shop: Bench) -> None:
    await transfer(shop, 1)
    transactions = int(await records(shop) / 2)
    for server, other in zip(shop.servers, (1, 0), strict=True):
        await server.psql(f"DELETE FROM pgshepherd.commit_record WHERE decision_shard = {other}", shop.database)
    controller = cleaner(shop)
    await rounds(shop, controller)
    losses = controller.cleanup.losses
    assert len(losses) == transactions
    assert all("lost its part of a committed transaction" in loss for loss in losses)
    assert await records(shop) == 0, "it holds nothing back"
    report = await controller.run_pass()
    assert report.losses == losses
    again = cleaner(shop)
    await rounds(shop, again, 1)
    assert again.cleanup.losses == losses, "every recoverer knows it"
    audit = "SELECT count(*) FROM pgshepherd.audit WHERE action = 'loss'"
    assert sum(int(count) for count in await shop.on_shards(audit)) == transactions


async def test_tombstones_go_when_nobody_older_is_open(shop: Bench) -> None:
    sql = "INSERT INTO pgshepherd.commit_record (txn, shard, decision_shard, epoch, participants, outcome) "
    await shop.servers[0].psql(f"{sql} VALUES ('{'a' * 32}', 0, 0, 1, '{{}}', 'abort')", shop.database)
    old = await asyncpg.connect(shop.servers[0].dsn(shop.database, "app", PASSWORD), timeout=10)
    await old.execute("BEGIN; SELECT 1")
    await shop.servers[0].psql("UPDATE pgshepherd.commit_record SET created_at = clock_timestamp()", shop.database)
    controller = cleaner(shop)
    await rounds(shop, controller, 2)
    left = "SELECT count(*) FROM pgshepherd.commit_record WHERE outcome = 'abort'"
    assert await shop.servers[0].psql(left, shop.database) == "1"
    await old.execute("ROLLBACK")
    await rounds(shop, controller, 2)
    assert await shop.servers[0].psql(left, shop.database) == "0"
    await old.close()


async def test_several_cleaners_while_clients_commit(shop: Bench) -> None:
    """Nothing is lost, nothing is found lost, and whatever fails says 40001."""
    controllers = [cleaner(shop) for _ in range(3)]
    cleaning = [asyncio.create_task(rounds(shop, controller, 12)) for controller in controllers]
    (source,), (target,) = accounts_on(2)
    client = await shop.client()
    await client.execute("INSERT INTO accounts VALUES ($1, 0)", source)
    await client.execute("INSERT INTO accounts VALUES ($1, 0)", target)
    committed = 0
    while not all(task.done() for task in cleaning):
        try:
            async with client.transaction():
                await client.execute("UPDATE accounts SET balance = balance - 1 WHERE customer_id = $1", source)
                await client.execute("UPDATE accounts SET balance = balance + 1 WHERE customer_id = $1", target)
        except asyncpg.SerializationError:
            continue
        committed += 1
    await asyncio.gather(*cleaning)
    await client.close()
    assert all(not controller.cleanup.losses for controller in controllers)
    balances = [int(balance) for balance in await shop.on_shards("SELECT balance FROM accounts")]
    assert balances == [-committed, committed]
    assert committed > 0
    await rounds(shop, controllers[0], 8)
    assert await records(shop) == 0
