"""psycopg 3: client- and server-side binding, text and binary, prepared statements, pipelines, transactions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from bench import Bench
from programs import total

Fresh = Callable[[int], list[int]]
Client = psycopg.AsyncConnection[tuple[object, ...]]


@pytest_asyncio.fixture(loop_scope="session")
async def client(market: Bench) -> AsyncIterator[Client]:
    connection = await psycopg.AsyncConnection.connect(market.dsn, autocommit=True, connect_timeout=10)
    yield connection
    await connection.close()


async def fetch(client: Client, text: str, *values: object, binary: bool = False) -> list[tuple[object, ...]]:
    return await (await client.execute(text, values or None, binary=binary)).fetchall()


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("placeholder", ["%s", "%t", "%b"])
async def test_keys_of_each_type(client: Client, fresh: Fresh, placeholder: str, binary: bool) -> None:
    for key in fresh(2):
        word, thing = f"wörd-{uuid4()}", uuid4()
        await client.execute(f"INSERT INTO accounts VALUES ({placeholder}, {placeholder})", (key, key))
        await client.execute(f"INSERT INTO words VALUES ({placeholder}, 1)", (word,))
        await client.execute(f"INSERT INTO things VALUES ({placeholder}, 2)", (thing,))
        where = f"SELECT * FROM accounts WHERE customer_id = {placeholder} AND balance IN ({placeholder}, 0)"
        assert await fetch(client, where, key, key, binary=binary) == [(key, key, None)]
        assert await fetch(client, f"SELECT * FROM words WHERE word = {placeholder}", word, binary=binary) == [(word, 1)]
        assert await fetch(client, f"SELECT * FROM things WHERE thing = {placeholder}", thing, binary=binary) == [(thing, 2)]


async def test_client_side_binding(market: Bench, fresh: Fresh) -> None:
    """The simple protocol: everything is a literal."""
    keys, before = fresh(2), await total(market)
    async with await psycopg.AsyncConnection.connect(market.dsn, cursor_factory=psycopg.AsyncClientCursor) as client:
        for key in keys:
            await client.execute("INSERT INTO accounts VALUES (%s, %s)", (key, 50))
        await client.commit()
        cursor = await client.execute("SELECT customer_id FROM accounts WHERE customer_id IN (%s, %s)", keys)
        assert {row[0] for row in await cursor.fetchall()} == set(keys)
        await client.execute(sql.SQL("UPDATE accounts SET balance = 0 WHERE customer_id = {}").format(keys[0]))
        await client.rollback()
    assert await total(market) == before + 100


@pytest.mark.parametrize("threshold", [0, 2, None])
async def test_prepared_statements(client: Client, fresh: Fresh, threshold: int | None) -> None:
    client.prepare_threshold = threshold
    keys = fresh(6)
    for key in keys:
        await client.execute("INSERT INTO accounts VALUES (%s, 1)", (key,))
    with pytest.raises(psycopg.errors.UniqueViolation):
        await client.execute("INSERT INTO accounts VALUES (%s, 1)", (keys[0],))
    for key in keys:
        assert await fetch(client, "SELECT balance FROM accounts WHERE customer_id = %s", key) == [(1,)]
    await client.execute("DISCARD ALL")
    client.prepare_threshold = None
    assert await fetch(client, "SELECT balance FROM accounts WHERE customer_id = %s", keys[0]) == [(1,)]


async def test_a_change_of_the_schema_under_prepared_statements(client: Client, fresh: Fresh) -> None:
    client.prepare_threshold = 0
    key = fresh(1)[0]
    await client.execute("CREATE TABLE growing (customer_id bigint)")
    await client.execute("INSERT INTO growing VALUES (%s)", (key,))
    assert await fetch(client, "SELECT * FROM growing WHERE customer_id = %s", key) == [(key,)]
    await client.execute("ALTER TABLE growing ADD COLUMN more int")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="cached plan must not change result type"):
        await fetch(client, "SELECT * FROM growing WHERE customer_id = %s", key)
    await client.execute("DEALLOCATE ALL")
    client.prepare_threshold = None
    assert await fetch(client, "SELECT * FROM growing WHERE customer_id = %s", key) == [(key, None)]


async def test_transactions(market: Bench, client: Client, fresh: Fresh) -> None:
    here, there = fresh(2)
    before = await total(market)
    async with client.transaction():
        await client.execute("INSERT INTO accounts VALUES (%s, 100)", (here,))
        with pytest.raises(psycopg.errors.UniqueViolation):
            async with client.transaction():
                await client.execute("INSERT INTO accounts VALUES (%s, 1)", (there,))
                await client.execute("INSERT INTO accounts VALUES (%s, 1)", (here,))
        await client.execute("INSERT INTO accounts VALUES (%s, 10)", (there,))
    assert await total(market) == before + 110
    async with client.transaction(force_rollback=True):
        await client.execute("UPDATE accounts SET balance = 0 WHERE customer_id IN (%s, %s)", (here, there))
    assert await total(market) == before + 110


async def test_a_pipeline_over_two_shards(market: Bench, client: Client, fresh: Fresh) -> None:
    """Everything between two Syncs is one transaction."""
    here, there = fresh(2)
    before = await total(market)
    async with client.pipeline() as pipeline:
        first = await client.execute("INSERT INTO accounts VALUES (%s, 30) RETURNING balance", (here,))
        second = await client.execute("INSERT INTO accounts VALUES (%s, 12) RETURNING balance", (there,))
        third = await client.execute("SELECT name FROM rates WHERE false")
        await pipeline.sync()
        assert [await first.fetchone(), await second.fetchone(), await third.fetchone()] == [(30,), (12,), None]
    assert await total(market) == before + 42
    with pytest.raises(psycopg.errors.UniqueViolation):
        async with client.pipeline():
            await client.execute("UPDATE accounts SET balance = 0 WHERE customer_id = %s", (there,))
            await client.execute("INSERT INTO accounts VALUES (%s, 1)", (here,))
            await client.execute("UPDATE accounts SET balance = 0 WHERE customer_id = %s", (here,))
    assert await total(market) == before + 42
    assert await fetch(client, "SELECT 1") == [(1,)]


async def test_transactions_inside_a_pipeline(market: Bench, client: Client, fresh: Fresh) -> None:
    here, there, third = fresh(3)
    before = await total(market)
    async with client.pipeline(), client.transaction():
        await client.execute("INSERT INTO accounts VALUES (%s, 1)", (here,))
        await client.execute("INSERT INTO accounts VALUES (%s, 2)", (there,))
    assert await total(market) == before + 3
    with pytest.raises(psycopg.errors.DivisionByZero):
        async with client.pipeline(), client.transaction():
            await client.execute("INSERT INTO accounts VALUES (%s, 1)", (third,))
            await client.execute("SELECT 1 / 0")
    assert await total(market) == before + 3
    async with client.pipeline():
        await client.execute("CREATE TABLE piped (customer_id bigint)")
        await client.execute("INSERT INTO piped VALUES (%s)", (here,))
        await client.execute("DROP TABLE piped")


async def test_executemany(market: Bench, client: Client, fresh: Fresh) -> None:
    """psycopg sends it as a pipeline."""
    keys, before = fresh(10), await total(market)
    async with client.cursor() as cursor:
        await cursor.executemany("INSERT INTO accounts VALUES (%s, %s)", [(key, 3) for key in keys])
        assert cursor.rowcount == 10
    assert await total(market) == before + 30


async def test_what_is_refused(client: Client) -> None:
    async with client.cursor() as cursor:
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            async with cursor.copy("COPY rates TO STDOUT") as copy:
                await copy.read()
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        async with client.transaction(), client.cursor("named") as named:
            await named.execute("SELECT 1")
    await client.set_autocommit(False)
    await client.tpc_begin(client.xid(1, "g", "b"))
    with pytest.raises(psycopg.errors.SyntaxError, match="are the proxy's own"):
        await client.tpc_prepare()


async def test_read_only_and_isolation_levels(client: Client, fresh: Fresh) -> None:
    here, there = fresh(2)
    await client.set_read_only(True)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        async with client.transaction():
            await client.execute("INSERT INTO accounts VALUES (%s, 1)", (here,))
    await client.set_read_only(None)
    await client.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
    async with client.transaction():
        await client.execute("INSERT INTO accounts VALUES (%s, 1)", (here,))
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="SERIALIZABLE over several shards"):
        async with client.transaction():
            await client.execute("UPDATE accounts SET balance = 2 WHERE customer_id = %s", (here,))
            await client.execute("INSERT INTO accounts VALUES (%s, 1)", (there,))
    assert await fetch(client, "SELECT balance FROM accounts WHERE customer_id = %s", here) == [(1,)]
