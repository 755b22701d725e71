"""The coordinator is killed before and after every message of the commit protocol, in both directions, on real servers.

Then two recoverers run at once, and the invariants must hold: both shards agree; what the client was told is true; nothing of
ours stays prepared; what is foreign is untouched; a second pass finds nothing to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
import pytest

from bench import Bench, accounts_on
from shardoperator.shards.application import Told
from shardoperator.standalone.demo.faults import commit_of
from shardoperator.standalone.demo.link import Direction, When, containing

FOREIGN = "foreign_gid_'with\"quotes"

POINTS: list[tuple[str, Direction, Callable[[bytes], bool]]] = [
    ("begin", Direction.TO_SERVER, containing("BEGIN")),
    ("prepare", Direction.TO_SERVER, containing("PREPARE TRANSACTION", "Q")),
    ("prepared", Direction.TO_CLIENT, containing("PREPARE TRANSACTION", "C")),
    ("decide", Direction.TO_SERVER, commit_of(decision=True)),
    ("finish", Direction.TO_SERVER, commit_of(decision=False)),
    ("decided-or-finished", Direction.TO_CLIENT, containing("COMMIT PREPARED", "C")),
]


async def _transfer(client: asyncpg.Connection, source: int, target: int) -> Told:
    try:
        async with client.transaction():
            await client.execute("UPDATE accounts SET balance = balance - 10 WHERE customer_id = $1", source)
            await client.execute("UPDATE accounts SET balance = balance + 10 WHERE customer_id = $1", target)
    except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError):
        return Told.NOTHING
    except asyncpg.PostgresError as error:
        return Told.NOTHING if error.sqlstate == "08007" else Told.FAILED
    return Told.COMMITTED


async def _books(bench: Bench, source: int, target: int) -> tuple[int, int]:
    sql = f"SELECT sum(balance) FILTER (WHERE customer_id = {source}), sum(balance) FILTER (WHERE customer_id = {target}) FROM accounts"
    rows = [line.split("|") for line in await bench.on_shards(sql)]
    return sum(int(row[0] or 0) for row in rows), sum(int(row[1] or 0) for row in rows)


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("when", list(When))
@pytest.mark.parametrize(("name", "direction", "matches"), POINTS, ids=[point[0] for point in POINTS])
async def test_kill(
    shop: Bench, name: str, direction: Direction, matches: Callable[[bytes], bool], when: When, victim: int
) -> None:
    (source,), (target,) = accounts_on(2)
    client = await shop.client()
    for account in (source, target):
        await client.execute("INSERT INTO accounts VALUES ($1, 100)", account)
    quoted = FOREIGN.replace("'", "''")
    await shop.servers[0].psql(f"BEGIN; CREATE TABLE foreign_table (); PREPARE TRANSACTION '{quoted}'", shop.database)

    either = name in ("decide", "finish")  # which shard decides is drawn by the transaction's id
    traps = [link.trap(direction, matches, when) for number, link in enumerate(shop.links) if either or number == victim]
    task = asyncio.create_task(_transfer(client, source, target))
    hits = [asyncio.create_task(trap.hit.wait()) for trap in traps]
    await asyncio.wait({task, *hits}, return_when=asyncio.FIRST_COMPLETED, timeout=15)
    for hit in hits:
        hit.cancel()
    assert any(trap.hit.is_set() for trap in traps), "the message was never seen"
    await shop.kill_proxy()
    for link in shop.links:
        link.cut()
        link.heal()
    told = await task
    client.terminate()

    first, second = shop.recovery(), shop.recovery()
    async with asyncio.timeout(30):
        while set(await shop.prepared()) != {FOREIGN}:
            await asyncio.gather(first.run_pass(), second.run_pass())
    report = await shop.recovery().run_pass()
    assert not report.ours()
    assert not report.failed

    books = await _books(shop, source, target)
    assert books in ((100, 100), (90, 110)), "the shards disagree"
    if told is Told.COMMITTED:
        assert books == (90, 110)
    elif told is Told.FAILED:
        assert books == (100, 100)
    if name in ("begin", "prepare"):
        assert books == (100, 100), "nothing was decided"
    assert await shop.servers[0].psql(f"SELECT count(*) FROM pg_prepared_xacts WHERE gid = '{quoted}'", shop.database) == "1"
    await shop.servers[0].psql(f"ROLLBACK PREPARED '{quoted}'", shop.database)
