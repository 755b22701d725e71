"""Transaction pooling: nothing of one client reaches another, and a server connection that dies is nobody's but its user's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from bench import PASSWORD, Bench, accounts_on
from programs import metric, sessions, total, until
from raw_client import RawClient, one, query
from shardoperator.standalone.demo.faults import commit_of
from shardoperator.standalone.demo.link import Direction, When, containing

Fresh = Callable[[int], list[int]]
BY_SHARD = "SELECT current_setting('statement_timeout') FROM accounts WHERE customer_id = {}"


async def login(bench: Bench) -> RawClient:
    return await RawClient.login(bench.listen.port, PASSWORD)


async def _seen(client: RawClient, keys: list[int]) -> list[str | None]:
    """The setting, as each shard sees it."""
    return [(await client.query(BY_SHARD.format(key))).rows[0][0] for key in keys]


@pytest.fixture
async def keys(market: Bench, fresh: Fresh) -> list[int]:
    taken = fresh(2)
    client = await login(market)
    await client.query("; ".join(f"INSERT INTO accounts VALUES ({key}, 1)" for key in taken))
    await client.close()
    return taken


async def test_settings_belong_to_one_client(market: Bench, keys: list[int]) -> None:
    first, second = await login(market), await login(market)
    assert (await first.query("SET statement_timeout = 7777")).tags == ["SET"]
    assert await _seen(first, keys) == ["7777ms"] * 2
    for client in (second, *[await login(market) for _ in range(4)]):
        assert await _seen(client, keys) == ["0"] * 2
    for reset in ("RESET ALL", "DISCARD ALL", "RESET statement_timeout", "SET statement_timeout = DEFAULT"):
        await first.query("SET statement_timeout = 7777")
        assert await _seen(first, keys) == ["7777ms"] * 2
        assert (await first.query(reset)).sqlstate == ""
        assert await _seen(first, keys) == ["0"] * 2
    await first.query("SET statement_timeout = 7777")
    await first.close()
    assert await _seen(second, keys) == ["0"] * 2


async def test_settings_in_transactions(market: Bench, keys: list[int]) -> None:
    client = await login(market)
    await client.query("BEGIN; SET LOCAL statement_timeout = 7777")
    assert await _seen(client, keys) == ["7777ms"] * 2
    await client.query("COMMIT")
    assert await _seen(client, keys) == ["0"] * 2
    await client.query(f"BEGIN; {BY_SHARD.format(keys[0])}; SET statement_timeout = 8888")
    assert await _seen(client, keys) == ["8888ms"] * 2
    await client.query("ROLLBACK")
    assert await _seen(client, keys) == ["0"] * 2
    await client.query("BEGIN; SET statement_timeout = 8888; SAVEPOINT a; SET statement_timeout = 9999; ROLLBACK TO a")
    assert await _seen(client, keys) == ["8888ms"] * 2
    await client.query("COMMIT")
    assert await _seen(client, keys) == ["8888ms"] * 2
    await client.query("BEGIN; RESET ALL")
    assert await _seen(client, keys) == ["0"] * 2
    await client.query("ROLLBACK")
    assert await _seen(client, keys) == ["8888ms"] * 2
    assert (await client.query("SELECT 1; RESET ALL; SELECT 2")).tags == ["SELECT 1", "RESET", "SELECT 1"]
    assert await _seen(client, keys) == ["0"] * 2
    assert (await client.query("SELECT 1; SET statement_timeout = 6666")).sqlstate == ""
    assert await _seen(client, keys) == ["6666ms"] * 2
    assert (await client.query("SET statement_timeout = 'nonsense'")).sqlstate == "22023"
    assert await _seen(client, keys) == ["6666ms"] * 2
    await client.close()
    assert await _seen(await login(market), keys) == ["0"] * 2


async def test_what_ends_with_a_transaction_is_reported(market: Bench) -> None:
    """Drivers read dates by what ParameterStatus said last."""
    client = await login(market)
    before = client.parameters["DateStyle"].encode()

    async def reported(sql: str) -> list[bytes]:
        return [m.body for m in (await client.query(sql)).messages if m.kind == "S" and m.body.startswith(b"DateStyle")]

    assert await reported("BEGIN; SET DateStyle = German") == [b"DateStyle\0German, DMY\0"]
    assert await reported("ROLLBACK") == [b"DateStyle\0" + before + b"\0"]
    assert await reported("BEGIN; SET LOCAL DateStyle = SQL") == [b"DateStyle\0SQL, MDY\0"]
    assert await reported("COMMIT") == [b"DateStyle\0" + before + b"\0"]
    await reported("SET DateStyle = German")
    assert await reported("RESET ALL") == [b"DateStyle\0" + before + b"\0"]
    assert await reported("SELECT 1") == []


@pytest.mark.parametrize(
    "sql",
    ["SELECT pg_advisory_lock(1)", "CREATE TEMP TABLE t (a int)", "CREATE TABLE pg_temp.t (a int)", "SELECT 1 AS a INTO TEMP t",
     "LISTEN x", "PREPARE a AS SELECT 1", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "SET search_path = x",
     "SELECT set_config('work_mem', '1MB', false)", "LOAD 'auto_explain'"],
)  # fmt: skip
async def test_what_would_stay_on_a_connection_is_refused(market: Bench, sql: str) -> None:
    answer = await (await login(market)).query(sql)
    assert answer.sqlstate == "0A000"
    assert answer.error["H"]


async def test_exhaustion(pair: Bench) -> None:
    await pair.start_proxy({"default_pool_size": 2, "checkout_timeout": 300})
    client = await login(pair)
    await client.query("CREATE TABLE accounts (customer_id bigint PRIMARY KEY, balance bigint)")
    here, there = (shard[0] for shard in accounts_on(2))
    holders = [await login(pair) for _ in range(2)]
    for holder in holders:
        assert (await holder.query(f"BEGIN; SELECT * FROM accounts WHERE customer_id = {here}")).status == "T"
    answer = await client.query(f"SELECT * FROM accounts WHERE customer_id = {here}")
    assert (answer.sqlstate, answer.status) == ("53300", "I")
    assert "no free connection to shard 0 within 0.3 s" in answer.error["M"]
    assert "pool_size" in answer.error["H"]
    assert (await client.query(f"SELECT * FROM accounts WHERE customer_id = {there}")).tags == ["SELECT 0"]
    client.send(query(f"SELECT * FROM accounts WHERE customer_id = {here}"))
    await holders[0].query("COMMIT")
    assert (await client.answer()).tags == ["SELECT 0"]
    await holders[1].close()
    for _ in range(5):
        assert (await client.query(f"SELECT * FROM accounts WHERE customer_id = {here}")).tags == ["SELECT 0"]
    assert await sessions(pair) <= 4


async def test_a_connection_that_dies_while_idle(market: Bench, keys: list[int]) -> None:
    client = await login(market)
    for _ in range(3):
        await market.on_shards("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle'")
        assert await _seen(client, keys) == ["0"] * 2
    await client.query("SET statement_timeout = 7777")
    await _seen(client, keys)
    await market.on_shards("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle'")
    assert await _seen(client, keys) == ["7777ms"] * 2, "the session's settings are made anew"


async def test_a_connection_that_dies_in_a_transaction(market: Bench, keys: list[int], fresh: Fresh) -> None:
    client, lost = await login(market), fresh(2)
    before = await total(market)
    await client.query("BEGIN")
    for key in lost:
        await client.query(f"INSERT INTO accounts VALUES ({key}, 100)")
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle in transaction'"
    await market.servers[1].psql(kill, market.database)

    async def gone() -> bool:
        return await sessions(market, "state = 'idle in transaction'") == 1

    await until(gone)
    answer = await client.query(f"SELECT * FROM accounts WHERE customer_id = {keys[1]}")
    assert (answer.sqlstate, answer.status) == ("08006", "E")
    assert (await client.query("SELECT 1")).sqlstate == "25P02"
    assert (await client.query("COMMIT")).tags == ["ROLLBACK"]
    assert await total(market) == before
    assert await _seen(client, keys) == ["0"] * 2
    assert await sessions(market, "state LIKE 'idle in transaction%'") == 0


async def test_a_connection_that_dies_in_a_transaction_that_is_committed(market: Bench, fresh: Fresh) -> None:
    """The client learns of it at COMMIT: everywhere or nowhere."""
    client, lost = await login(market), fresh(2)
    before = await total(market)
    await client.query("BEGIN")
    for key in lost:
        await client.query(f"INSERT INTO accounts VALUES ({key}, 100)")
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle in transaction'"
    await market.servers[0].psql(kill, market.database)
    answer = await client.query("COMMIT")
    assert (answer.sqlstate, answer.status) == ("08006", "I")
    assert await total(market) == before
    assert await market.prepared() == []
    assert (await client.query("SELECT 1")).rows == [("1",)]


@pytest.mark.parametrize("vanish", [True, False])
async def test_a_client_that_leaves_in_a_transaction(market: Bench, fresh: Fresh, vanish: bool) -> None:
    client, keys = await login(market), fresh(2)
    before = await total(market)
    await client.query("BEGIN")
    for key in keys:
        await client.query(f"INSERT INTO accounts VALUES ({key}, 100)")
    if vanish:
        client.vanish()
    else:
        await client.close()

    async def rolled_back() -> bool:
        return await sessions(market, "state LIKE 'idle in transaction%'") == 0

    await until(rolled_back)
    assert await total(market) == before
    again = await login(market)
    assert (await again.query(f"INSERT INTO accounts VALUES ({keys[0]}, 0)")).tags == ["INSERT 0 1"]


async def test_a_client_that_vanishes_in_a_statement(market: Bench, fresh: Fresh) -> None:
    client, keys = await login(market), fresh(2)
    holder = await market.client()
    await holder.execute("INSERT INTO accounts VALUES ($1, 1)", keys[0])
    await holder.execute("BEGIN")
    await holder.execute("UPDATE accounts SET balance = 2 WHERE customer_id = $1", keys[0])
    await client.query(f"BEGIN; INSERT INTO accounts VALUES ({keys[1]}, 1)")
    client.send(query(f"UPDATE accounts SET balance = 3 WHERE customer_id = {keys[0]}"))

    async def waiting() -> bool:
        return await sessions(market, "wait_event_type = 'Lock'") == 1

    await until(waiting)
    client.vanish()
    await holder.execute("COMMIT")

    async def rolled_back() -> bool:
        return await sessions(market, "state LIKE 'idle in transaction%'") == 0

    await until(rolled_back)
    found = await holder.fetch("SELECT balance FROM accounts WHERE customer_id IN ($1, $2)", *keys)
    assert [row["balance"] for row in found] == [2]
    await holder.close()


async def test_a_client_that_vanishes_in_its_commit(shop: Bench) -> None:
    """The commit runs to its end."""
    here, there = (shard[0] for shard in accounts_on(2))
    client = await login(shop)
    await client.query(f"BEGIN; INSERT INTO accounts VALUES ({here}, 1); INSERT INTO accounts VALUES ({there}, 2)")
    traps = [link.trap(Direction.TO_SERVER, commit_of(decision=True), When.BEFORE) for link in shop.links]
    client.send(query("COMMIT"))
    hits = [asyncio.create_task(trap.hit.wait()) for trap in traps]
    await asyncio.wait(hits, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    for hit in hits:
        hit.cancel()
    client.vanish()
    for link in shop.links:
        link.heal()

    async def finished() -> bool:
        return await total(shop) == 3 and not await shop.prepared()

    await until(finished)

    async def forgotten() -> bool:
        return await metric(shop, "pgshepherd_proxy_clients") == 0

    await until(forgotten)


async def test_a_plain_commit_whose_answer_is_lost(shop: Bench) -> None:
    """One shard: committed or not, nobody knows; the client is told so."""
    here = accounts_on(2)[0][0]
    client = await login(shop)
    await client.query(f"BEGIN; INSERT INTO accounts VALUES ({here}, 1)")
    shop.links[0].trap(Direction.TO_CLIENT, containing("COMMIT", "C"), When.BEFORE, cut=True)
    answer = await client.query("COMMIT")
    assert (answer.sqlstate, answer.status) == ("08007", "I")
    assert await total(shop) == 1
    shop.links[0].heal()
    assert (await client.query(f"SELECT * FROM accounts WHERE customer_id = {here}")).tags == ["SELECT 1"]
    shop.links[0].refusing = True
    shop.links[0].cut()

    async def refused() -> bool:
        return (await client.query(f"SELECT * FROM accounts WHERE customer_id = {here}")).sqlstate == "08001"

    await until(refused)
    there = accounts_on(2)[1][0]
    assert (await client.ask(one(f"SELECT * FROM accounts WHERE customer_id = {there}"), b"S\0\0\0\4")).tags == ["SELECT 0"]
