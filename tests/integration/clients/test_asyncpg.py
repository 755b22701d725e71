"""asyncpg: prepared statements, its introspection of types, transactions, and the books on both shards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from bench import Bench
from programs import total

Fresh = Callable[[int], list[int]]


@pytest_asyncio.fixture(loop_scope="session")
async def client(market: Bench) -> AsyncIterator[asyncpg.Connection]:
    connection = await market.client()
    yield connection
    await connection.close()


async def test_binary_keys_of_each_type(market: Bench, client: asyncpg.Connection, fresh: Fresh) -> None:
    keys, words, things = fresh(6), [f"wörd-{uuid4()}" for _ in range(6)], [uuid4() for _ in range(6)]
    for number, (key, word, thing) in enumerate(zip(keys, words, things, strict=True)):
        await client.execute("INSERT INTO accounts VALUES ($1, $2)", key, number)
        await client.execute("INSERT INTO words VALUES ($1, $2)", word, number)
        await client.execute("INSERT INTO things (n, thing) VALUES ($1, $2)", number, thing)
    for number, (key, word, thing) in enumerate(zip(keys, words, things, strict=True)):
        assert await client.fetchval("SELECT balance FROM accounts WHERE customer_id = $1", key) == number
        assert await client.fetchval("SELECT n FROM words WHERE word = $1", word) == number
        assert await client.fetchval("SELECT n FROM things WHERE thing = $1::uuid", thing) == number
        assert await client.fetchval(f"SELECT n FROM things WHERE thing = '{thing}'") == number
    for table, column, wanted in [("words", "word", set[object](words)), ("things", "thing", set[object](things))]:
        found = await client.fetch(f"SELECT {column} AS k FROM {table}")
        assert wanted <= {row["k"] for row in found}
        counts = await market.on_shards(f"SELECT count(*) FROM {table}")
        assert sum(map(int, counts)) == len(found), "each row is on one shard"


async def test_prepared_statements(client: asyncpg.Connection, fresh: Fresh) -> None:
    keys = fresh(8)
    insert = await client.prepare("INSERT INTO accounts VALUES ($1, $2) RETURNING balance")
    assert [parameter.name for parameter in insert.get_parameters()] == ["int8", "int8"]
    assert [attribute.name for attribute in insert.get_attributes()] == ["balance"]
    for key in keys:
        assert await insert.fetchval(key, key * 2) == key * 2
    read = await client.prepare("SELECT customer_id, balance FROM accounts WHERE customer_id = $1")
    assert [tuple(*await read.fetch(key)) for key in keys] == [(key, key * 2) for key in keys]
    with pytest.raises(asyncpg.UniqueViolationError) as caught:
        await insert.fetchval(keys[0], 1)
    assert caught.value.constraint_name == "accounts_pkey"
    assert await insert.fetchval(*fresh(1), 5) == 5, "the statement survives its error"


async def test_executemany_is_one_transaction(market: Bench, client: asyncpg.Connection, fresh: Fresh) -> None:
    keys, before = fresh(20), await total(market)
    await client.executemany("INSERT INTO accounts VALUES ($1, $2)", [(key, 10) for key in keys])
    assert await total(market) == before + 200
    more = fresh(4)
    with pytest.raises(asyncpg.UniqueViolationError):
        await client.executemany("INSERT INTO accounts VALUES ($1, $2)", [(key, 1) for key in [*more, keys[0]]])
    assert await total(market) == before + 200
    assert await client.fetchval("SELECT 1") == 1


async def test_transactions_and_savepoints(market: Bench, client: asyncpg.Connection, fresh: Fresh) -> None:
    here, there, third = fresh(3)
    before = await total(market)
    async with client.transaction():
        await client.execute("INSERT INTO accounts VALUES ($1, 5)", here)
        with pytest.raises(asyncpg.UniqueViolationError):
            async with client.transaction():
                await client.execute("INSERT INTO accounts VALUES ($1, 7)", there)
                await client.execute("INSERT INTO accounts VALUES ($1, 7)", here)
        async with client.transaction():
            await client.execute("INSERT INTO accounts VALUES ($1, 11)", there)
    assert await total(market) == before + 16
    with pytest.raises(ZeroDivisionError):
        async with client.transaction():
            await client.execute("INSERT INTO accounts VALUES ($1, 1)", third)
            await client.execute("UPDATE accounts SET balance = 0 WHERE customer_id = $1", there)
            raise ZeroDivisionError
    assert await total(market) == before + 16
    assert await market.prepared() == []


async def test_a_failed_transaction(market: Bench, client: asyncpg.Connection, fresh: Fresh) -> None:
    here, there = fresh(2)
    transaction = client.transaction()
    await transaction.start()
    await client.execute("INSERT INTO accounts VALUES ($1, 5)", here)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await client.execute("SELECT 1 / (balance - 5) FROM accounts WHERE customer_id = $1", here)
    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        await client.execute("INSERT INTO accounts VALUES ($1, 5)", there)
    await transaction.rollback()
    assert await client.fetch("SELECT * FROM accounts WHERE customer_id IN ($1, $2)", here, there) == []


async def test_cursors_work_on_one_shard_and_are_refused_on_several(client: asyncpg.Connection, fresh: Fresh) -> None:
    key = fresh(1)[0]
    await client.executemany("INSERT INTO accounts VALUES ($1, 1)", [(key,)])
    for number in range(5):
        await client.execute("INSERT INTO rates VALUES ($1, $2)", f"cursor-{key}-{number}", number)
    async with client.transaction():
        cursor = await client.cursor("SELECT rate FROM rates WHERE name LIKE $1 ORDER BY rate", f"cursor-{key}-%")
        assert [row[0] for row in await cursor.fetch(2)] == [0, 1]
        assert [row[0] for row in await cursor.fetch(9)] == [2, 3, 4]
        read = [row[0] async for row in client.cursor("SELECT rate FROM rates WHERE name LIKE $1", f"cursor-{key}-%", prefetch=2)]
        assert sorted(read) == [0, 1, 2, 3, 4]
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="a row limit"):
        async with client.transaction():
            await (await client.cursor("SELECT * FROM accounts")).fetch(1)
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="FETCH and MOVE"):
        async with client.transaction():
            await (await client.cursor("SELECT * FROM rates")).forward(1)


async def test_types_of_the_application(market: Bench, fresh: Fresh) -> None:
    """The types are made on each shard by itself; asyncpg asks the catalogs what they are."""
    await market.on_shards("CREATE TYPE mood AS ENUM ('sad', 'happy')")
    await market.on_shards("CREATE TYPE place AS (street text, number int)")
    client = await market.client()
    await client.execute("CREATE TABLE people (customer_id bigint PRIMARY KEY, moods mood[], home place, span int4range)")
    here, there = fresh(2)
    for key in (here, there):
        row = (key, ["sad", "happy"], ("Main", key), asyncpg.Range(1, 5))
        await client.execute("INSERT INTO people VALUES ($1, $2, $3, $4)", *row)
        found = await client.fetchrow("SELECT * FROM people WHERE customer_id = $1", key)
        assert found is not None
        assert (found["moods"], tuple(found["home"]), found["span"]) == (row[1], row[2], row[3])
    await client.set_type_codec("mood", encoder=str.lower, decoder=str.upper, schema="public")
    assert await client.fetchval("SELECT moods[1] FROM people WHERE customer_id = $1", here) == "SAD"
    await client.close()


async def test_a_pool_resets_what_a_user_left(market: Bench) -> None:
    async with asyncpg.create_pool(market.dsn, min_size=1, max_size=1, timeout=10) as pool:
        async with pool.acquire() as client:
            await client.execute("SET statement_timeout = 4321")
            assert await client.fetchval("SHOW statement_timeout") == "4321ms"
        async with pool.acquire() as client:
            assert await client.fetchval("SHOW statement_timeout") == "0"


async def test_settings_at_login(market: Bench) -> None:
    client = await asyncpg.connect(
        market.dsn, server_settings={"application_name": "mine", "statement_timeout": "5s"}, timeout=10
    )
    assert await client.fetchval("SHOW statement_timeout") == "5s"
    assert client.get_settings().application_name == "mine"
    await client.close()
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="search_path"):
        await asyncpg.connect(market.dsn, server_settings={"search_path": "other"}, timeout=10)


async def test_copy_is_refused(client: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.FeatureNotSupportedError):
        await client.copy_records_to_table("rates", records=[("x", 1)])
    with pytest.raises(asyncpg.FeatureNotSupportedError):
        await client.add_listener("channel", print)
    assert await client.fetchval("SELECT 1") == 1
