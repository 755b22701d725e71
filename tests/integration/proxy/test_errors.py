"""Errors and transactions as the wire shows them: skipping to Sync, 25P02, failed COMMITs, pipelining."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from bench import PASSWORD, Bench
from raw_client import FLUSH, SYNC, RawClient, bind, describe, execute, frame, one, parse, query, text

Fresh = Callable[[int], list[int]]


@pytest_asyncio.fixture(loop_scope="session")
async def client(market: Bench) -> AsyncIterator[RawClient]:
    raw = await RawClient.login(market.listen.port, PASSWORD)
    yield raw
    await raw.close()


async def written(market: Bench, *keys: int) -> int:
    listed = ", ".join(map(str, keys))
    return sum(map(int, await market.on_shards(f"SELECT count(*) FROM accounts WHERE customer_id IN ({listed})")))


def insert(key: int) -> str:
    return f"INSERT INTO accounts VALUES ({key}, 1)"


@pytest.mark.parametrize("extended", [False, True])
async def test_a_failed_transaction(market: Bench, client: RawClient, fresh: Fresh, extended: bool) -> None:
    here, there = fresh(2)

    async def ask(sql: str) -> tuple[str, str]:
        answer = await client.ask(one(sql) + SYNC if extended else query(sql))
        return answer.sqlstate or answer.tags[0], answer.status

    assert await ask("BEGIN") == ("BEGIN", "T")
    assert await ask(insert(here)) == ("INSERT 0 1", "T")
    assert await ask(insert(there)) == ("INSERT 0 1", "T")
    assert await ask("SELECT 1 / 0") == ("22012", "E")
    for sql in ("SELECT 1", insert(here), "SAVEPOINT a", "SET jit = off", "BEGIN", "COPY rates TO STDOUT"):
        assert await ask(sql) == ("25P02", "E")
    assert await ask("COMMIT") == ("ROLLBACK", "I")
    assert await written(market, here, there) == 0
    assert await ask("SELECT 1") == ("SELECT 1", "I")
    assert await market.prepared() == []


@pytest.mark.parametrize(
    "sql", ["COPY rates TO STDOUT", "SELECT count(*) FROM accounts", "SELECT * FROM nowhere", "SELECT frob("]
)
async def test_what_the_proxy_refuses_fails_the_transaction_too(market: Bench, client: RawClient, fresh: Fresh, sql: str) -> None:
    here, there = fresh(2)
    await client.query(f"BEGIN; {insert(here)}; {insert(there)}")
    assert (await client.query(sql)).status == "E"
    assert (await client.query("SELECT 1")).sqlstate == "25P02"
    assert (await client.query("COMMIT")).tags == ["ROLLBACK"]
    assert await written(market, here, there) == 0


async def test_savepoints_mend_a_failed_transaction_on_every_shard(market: Bench, client: RawClient, fresh: Fresh) -> None:
    here, there, lost = fresh(3)
    await client.query(f"BEGIN; {insert(here)}; SAVEPOINT a")
    assert (await client.query(f"{insert(lost)}; {insert(there)}; SELECT 1 / 0")).status == "E"
    assert (await client.query("ROLLBACK TO nowhere")).sqlstate == "3B001"
    answer = await client.query("ROLLBACK TO a")
    assert (answer.tags, answer.status) == (["ROLLBACK"], "T")
    assert (await client.query(insert(there))).tags == ["INSERT 0 1"]
    assert (await client.query("RELEASE a")).tags == ["RELEASE"]
    assert (await client.query("RELEASE a")).sqlstate == "3B001"
    assert (await client.query("COMMIT")).tags == ["ROLLBACK"]
    await client.query(f"BEGIN; {insert(here)}; SAVEPOINT a; {insert(lost)}; ROLLBACK TO a; {insert(there)}")
    assert (await client.query("COMMIT")).tags == ["COMMIT"]
    assert (await written(market, here, there), await written(market, lost)) == (2, 0)


async def test_outside_transactions(client: RawClient) -> None:
    for sql, tag in [("COMMIT", "COMMIT"), ("ROLLBACK", "ROLLBACK")]:
        answer = await client.query(sql)
        assert (answer.tags, answer.warnings, answer.status) == ([tag], ["25P01"], "I")
    assert (await client.query("SAVEPOINT a")).sqlstate == "25P01"
    answer = await client.query("SET LOCAL jit = off")
    assert (answer.tags, answer.warnings) == (["SET"], ["25P01"])
    await client.query("BEGIN")
    answer = await client.query("BEGIN")
    assert (answer.tags, answer.warnings, answer.status) == (["BEGIN"], ["25001"], "T")
    await client.query("ROLLBACK")


async def test_after_an_error_everything_is_skipped_up_to_sync(market: Bench, client: RawClient, fresh: Fresh) -> None:
    here, there, third, fourth = fresh(4)
    client.send(
        one(insert(here)), one("SELECT 1 / 0"), one(insert(there)), FLUSH, one("SELECT 1"), SYNC, one(insert(third)), SYNC
    )
    answer = await client.answer()
    assert (answer.kinds, answer.sqlstate, answer.status) == ("12C1EZ", "22012", "I")
    assert (await client.answer()).tags == ["INSERT 0 1"]
    client.send(one(insert(fourth)), FLUSH)
    assert [(await client.message()).kind for _ in range(3)] == ["1", "2", "C"]
    client.send(one("SELECT 1 / 0"), one(insert(there)), SYNC)
    assert (await client.answer()).sqlstate == "22012"
    assert (await written(market, here, there, fourth), await written(market, third)) == (0, 1)


async def test_a_batch_is_one_transaction_over_shards(market: Bench, client: RawClient, fresh: Fresh) -> None:
    here, there = fresh(2)
    answer = await client.ask(one(insert(here)), one(insert(there)), SYNC)
    assert (answer.kinds, answer.status) == ("12C12CZ", "I")
    assert await written(market, here, there) == 2
    both = f"UPDATE accounts SET balance = balance + 1 WHERE customer_id IN ({here}, {there}) RETURNING balance"
    answer = await client.ask(parse("", both), describe("S"), bind("", ""), describe("P"), execute(), SYNC)
    assert (answer.kinds, answer.tags, answer.rows) == ("1tT2TDDCZ", ["UPDATE 2"], [("2",), ("2",)])


async def test_control_statements_in_a_batch(market: Bench, client: RawClient, fresh: Fresh) -> None:
    here, there, third = fresh(3)
    answer = await client.ask(one("BEGIN"), one(insert(here)), one(insert(there)), one("COMMIT"), one("SELECT 1"), SYNC)
    assert (answer.tags, answer.sqlstate, answer.status) == (["BEGIN", "INSERT 0 1", "INSERT 0 1", "COMMIT", "SELECT 1"], "", "I")
    assert await written(market, here, there) == 2
    await client.query("BEGIN")
    assert (await client.query("SELECT 1 / 0")).status == "E"
    answer = await client.ask(one("ROLLBACK"), one(insert(third)), one("SELECT 2"), SYNC)
    assert (answer.tags, answer.sqlstate, answer.status) == (["ROLLBACK", "INSERT 0 1", "SELECT 1"], "", "I")
    assert await written(market, third) == 1
    answer = await client.ask(
        one("BEGIN"), one("CREATE TABLE batched (customer_id bigint)"), one(f"INSERT INTO batched VALUES ({here})"),
        one(f"INSERT INTO batched VALUES ({there})"), one("ROLLBACK"), SYNC,
    )  # fmt: skip
    assert (answer.sqlstate, len(answer.tags)) == ("", 5)


async def test_names_of_statements_and_portals(client: RawClient, fresh: Fresh) -> None:
    here, there = fresh(2)
    answer = await client.ask(parse("s", "INSERT INTO accounts VALUES ($1, 1)"), describe("S", "s"), SYNC)
    assert answer.kinds == "1tnZ"
    assert (await client.ask(parse("s", "SELECT 1"), SYNC)).sqlstate == "42P05"
    for key in (here, there):
        assert (await client.ask(bind("p", "s", str(key).encode()), execute("p"), SYNC)).tags == ["INSERT 0 1"]
    assert (await client.ask(bind("", "s", str(here).encode()), execute(), SYNC)).sqlstate == "23505"
    assert (await client.ask(execute("p"), SYNC)).sqlstate == "34000", "portals end with their transaction"
    assert (await client.ask(bind("", "none"), SYNC)).sqlstate == "26000"
    assert (await client.ask(bind("", "s"), SYNC)).sqlstate == "08P01"
    assert (await client.ask(frame("C", b"S" + text("s")), frame("C", b"S" + text("none")), SYNC)).kinds == "33Z"
    assert (await client.ask(bind("", "s", b"1"), SYNC)).sqlstate == "26000"
    assert (await client.ask(parse("", "SELECT 1; SELECT 2"), SYNC)).sqlstate == "42601"
    assert (await client.ask(one(""), SYNC)).kinds == "12IZ"
    assert (await client.query("")).kinds == "IZ"
    assert (await client.query("-- nothing")).kinds == "IZ"


async def test_a_name_whose_statement_failed_is_free_again(market: Bench, client: RawClient) -> None:
    await market.on_shards("CREATE TABLE later (customer_id bigint); GRANT ALL ON later TO app")
    assert (await client.ask(parse("a", "SELECT missing FROM later"), describe("S", "a"), SYNC)).sqlstate == "42703"
    assert (
        await client.ask(parse("b", "SELECT 1 / 0"), bind("", "b"), execute(), parse("c", "SELECT 1"), SYNC)
    ).sqlstate == "22012"
    await market.on_shards("ALTER TABLE later ADD COLUMN missing int")
    for name in "ac":
        assert (await client.ask(parse(name, "SELECT missing FROM later"), describe("S", name), SYNC)).kinds == "1tTZ"
    assert (await client.ask(bind("", "b"), execute(), SYNC)).sqlstate == "22012", "this one was prepared"


async def test_an_unnamed_statement_survives_what_others_do_on_its_connection(market: Bench, client: RawClient) -> None:
    """A server forgets its unnamed statement at the next simple query, whoever sends it."""
    assert (await client.ask(parse("", "SELECT $1::int"), describe("S"), SYNC)).kinds == "1tTZ"
    for _ in range(4):
        other = await RawClient.login(market.listen.port, PASSWORD)
        await other.query("BEGIN; SELECT 1; COMMIT")
        await other.query("SELECT 1")
        await other.close()
    assert (await client.ask(bind("", "", b"7"), execute(), SYNC)).rows == [("7",)]


async def test_answers_come_at_each_sync(market: Bench, client: RawClient, fresh: Fresh) -> None:
    """What is ready is sent while the next statement still waits: here, for a lock."""
    key = fresh(1)[0]
    await client.query(insert(key))
    holder = await market.client()
    await holder.execute("BEGIN")
    await holder.execute("UPDATE accounts SET balance = 5 WHERE customer_id = $1", key)
    update = f"UPDATE accounts SET balance = balance + 1 WHERE customer_id = {key}"
    client.send(one("SELECT 1"), SYNC, one(update), SYNC)
    assert (await client.answer()).rows == [("1",)]
    client.send(query("SELECT 3"))
    await holder.execute("COMMIT")
    assert (await client.answer()).tags == ["UPDATE 1"]
    assert (await client.answer()).rows == [("3",)]
    await holder.close()


async def test_row_limits(client: RawClient, fresh: Fresh) -> None:
    await client.query("BEGIN")
    answer = await client.ask(parse("", "SELECT oid FROM pg_type LIMIT 5"), bind("p", ""), execute("p", 2), SYNC)
    assert (answer.kinds, answer.status) == ("12DDsZ", "T")
    assert (await client.ask(execute("p", 2), execute("p"), SYNC)).kinds == "DDsDCZ"
    assert (await client.ask(parse("", "SELECT * FROM accounts"), bind("", ""), execute("", 2), SYNC)).sqlstate == "0A000"
    await client.query("ROLLBACK")


async def test_a_very_deep_expression_is_an_error_of_its_own(client: RawClient) -> None:
    """The parser's tree has a limit: the session must survive it."""
    answer = await client.query("SELECT " + "+".join(["1"] * 3000))
    assert (answer.sqlstate, answer.status) == ("54001", "I")
    assert (await client.query("SELECT " + "(" * 20000 + "1" + ")" * 20000)).sqlstate == "42601"
    assert (await client.query("SELECT 1")).rows == [("1",)]


async def test_the_function_call_protocol_is_refused(client: RawClient) -> None:
    answer = await client.ask(frame("F", b"\0\0\0\1\0\0\0\0\0\0"))
    assert (answer.sqlstate, answer.status) == ("0A000", "I")
    client.send(frame("d", b"data"), frame("c"), frame("f", text("x")))
    assert (await client.query("SELECT 1")).rows == [("1",)]
