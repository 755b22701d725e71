"""CancelRequest: the running statement of that client, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bench import PASSWORD, Bench, accounts_on
from programs import sessions, total, until
from raw_client import RawClient, query, send_cancel
from shardoperator.standalone.demo.faults import commit_of
from shardoperator.standalone.demo.link import Direction, When

Fresh = Callable[[int], list[int]]


def _sleeping(market: Bench, count: int) -> Callable[[], object]:
    async def asleep() -> bool:
        return await sessions(market, "state = 'active' AND query LIKE '%pg_sleep(77%'") == count

    return asleep


async def test_only_that_client(market: Bench) -> None:
    port = market.listen.port
    first, second = await RawClient.login(port, PASSWORD), await RawClient.login(port, PASSWORD)
    for client in (first, second):
        client.send(query("SELECT pg_sleep(77)"))
    await until(_sleeping(market, 2))  # type: ignore[arg-type]
    pid, secret = first.key
    for wrong in [(pid, secret ^ 1), (pid ^ 1, secret), (0, 0), (secret, pid)]:
        await send_cancel(port, *wrong)
    assert await sessions(market, "state = 'active' AND query LIKE '%pg_sleep(77%'") == 2
    await first.cancel(port)
    answer = await first.answer()
    assert (answer.sqlstate, answer.status) == ("57014", "I")
    assert await sessions(market, "state = 'active' AND query LIKE '%pg_sleep(77%'") == 1
    assert (await first.query("SELECT 1")).rows == [("1",)]
    await first.cancel(port)
    assert (await first.query("SELECT 2")).rows == [("2",)], "a cancel for nothing harms nobody"
    await second.cancel(port)
    assert (await second.answer()).sqlstate == "57014"


async def test_a_statement_over_both_shards(market: Bench, fresh: Fresh) -> None:
    keys = fresh(2)
    client, holder = await RawClient.login(market.listen.port, PASSWORD), await market.client()
    await holder.executemany("INSERT INTO accounts VALUES ($1, 1)", [(key,) for key in keys])
    await holder.execute("BEGIN")
    await holder.execute("UPDATE accounts SET balance = 2 WHERE customer_id IN ($1, $2)", *keys)
    await client.query("BEGIN")
    client.send(query(f"UPDATE accounts SET balance = 3 WHERE customer_id IN ({keys[0]}, {keys[1]})"))

    async def waiting() -> bool:
        return await sessions(market, "wait_event_type = 'Lock'") == 2

    await until(waiting)
    await client.cancel(market.listen.port)
    answer = await client.answer()
    assert (answer.sqlstate, answer.status) == ("57014", "E")
    assert (await client.query("COMMIT")).tags == ["ROLLBACK"]
    await holder.execute("COMMIT")
    assert [row[0] for row in await holder.fetch("SELECT balance FROM accounts WHERE customer_id IN ($1, $2)", *keys)] == [2, 2]
    await holder.close()


async def test_never_during_commit(shop: Bench) -> None:
    """No CancelRequest reaches a shard from the first PREPARE on."""
    ((here,), (there,)) = accounts_on(2)
    client = await RawClient.login(shop.listen.port, PASSWORD)
    await client.query(f"BEGIN; INSERT INTO accounts VALUES ({here}, 1); INSERT INTO accounts VALUES ({there}, 2)")
    for link in shop.links:
        link.seen = []
    traps = [link.trap(Direction.TO_SERVER, commit_of(decision=True), When.BEFORE) for link in shop.links]
    client.send(query("COMMIT"))
    hits = [asyncio.create_task(trap.hit.wait()) for trap in traps]
    await asyncio.wait(hits, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    for hit in hits:
        hit.cancel()
    for _ in range(3):
        await client.cancel(shop.listen.port)
    for link in shop.links:
        link.heal()
    assert (await client.answer()).tags == ["COMMIT"]
    assert await total(shop) == 3
    sent = [frame for link in shop.links for _, frame in link.seen or ()]
    assert any(b"COMMIT PREPARED" in frame for frame in sent)
    assert not [frame for frame in sent if frame[4:8] == (80877102).to_bytes(4, "big")]
