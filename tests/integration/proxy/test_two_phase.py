"""Two-phase commit from the client's side: switched off, without its file, out of slots, refused by PREPARE, in a deadlock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bench import PASSWORD, Bench, accounts_on
from programs import metric, sessions, total, until
from raw_client import Answer, RawClient, query
from shardoperator.standalone.demo.faults import commit_of
from shardoperator.standalone.demo.link import Direction, When

HERE, THERE = (shard[0] for shard in accounts_on(2))
MORE = [accounts_on(2, 4)[shard][1:] for shard in range(2)]
COMMITS = "pgshepherd_proxy_two_phase_transactions_total"
SINGLE = "pgshepherd_proxy_non_atomic_commits_total"


async def login(bench: Bench) -> RawClient:
    return await RawClient.login(bench.listen.port, PASSWORD)


async def _tables(bench: Bench) -> RawClient:
    """On the shards themselves: DDL over several shards may be just what is refused."""
    await bench.on_shards(
        "CREATE TABLE accounts (customer_id bigint PRIMARY KEY, balance bigint NOT NULL);"
        "CREATE TABLE rates (name text PRIMARY KEY, rate int); GRANT ALL ON ALL TABLES IN SCHEMA public TO app"
    )
    return await login(bench)


def transfer(*pairs: tuple[int, int]) -> str:
    return "; ".join(f"INSERT INTO accounts VALUES ({key}, {balance})" for key, balance in pairs)


async def test_switched_off(pair: Bench) -> None:
    """Each shard commits for itself, as PgDog does, and it is counted."""
    await pair.start_proxy({"two_phase_commit": False, "two_phase_commit_auto": False})
    client = await _tables(pair)
    assert (await client.query(f"BEGIN; {transfer((HERE, 1), (THERE, 2))}; COMMIT")).tags[-1] == "COMMIT"
    assert (await client.query("UPDATE accounts SET balance = balance + 1")).tags == ["UPDATE 2"]
    assert (await client.query(f"UPDATE accounts SET balance = 5 WHERE customer_id = {HERE}")).tags == ["UPDATE 1"]
    assert (await metric(pair, COMMITS), await metric(pair, SINGLE)) == (0, 2)
    assert await total(pair) == 8
    assert (await client.query(f"BEGIN; {transfer((MORE[0][0], 1), (MORE[1][0], 2))}; ROLLBACK")).tags[-1] == "ROLLBACK"
    assert await total(pair) == 8


async def test_auto_off(pair: Bench) -> None:
    """What the client says BEGIN and COMMIT to is atomic; what it does not, is each shard's own."""
    await pair.start_proxy({"two_phase_commit": True, "two_phase_commit_auto": False})
    client = await _tables(pair)
    await client.query(f"BEGIN; {transfer((HERE, 1), (THERE, 2))}; COMMIT")
    assert (await metric(pair, COMMITS), await metric(pair, SINGLE)) == (1, 0)
    await client.query("INSERT INTO rates VALUES ('a', 1)")
    assert (await metric(pair, COMMITS), await metric(pair, SINGLE)) == (1, 1)
    assert await pair.on_shards("SELECT count(*) FROM rates") == ["1", "1"]


async def test_without_its_file(pair: Bench) -> None:
    await pair.start_proxy(ours=False)
    assert "no pgshepherd.toml: writes on several shards will be refused" in pair.log()
    client = await _tables(pair)
    assert (await client.query(transfer((HERE, 1)))).tags == ["INSERT 0 1"]
    assert (await client.query(f"BEGIN; {transfer((MORE[0][0], 1))}; COMMIT")).tags[-1] == "COMMIT"
    several = transfer((MORE[0][1], 1), (THERE, 2))
    for sql in ("UPDATE accounts SET balance = 9", "INSERT INTO rates VALUES ('a', 1)", several, "CREATE TABLE x (a int)"):
        answer = await client.query(sql)
        assert (answer.sqlstate, answer.status) == ("55000", "I")
        assert "pgshepherd.toml" in answer.error["H"]
    await client.query(f"BEGIN; {transfer((MORE[0][1], 1), (THERE, 2))}")
    assert (await client.query("COMMIT")).sqlstate == "55000"
    assert (await client.query("SELECT * FROM accounts")).tags == ["SELECT 2"]
    assert await total(pair) == 2
    assert await sessions(pair, "state LIKE 'idle in transaction%'") == 0


async def _hold_decision(bench: Bench, client: RawClient) -> None:
    traps = [link.trap(Direction.TO_SERVER, commit_of(decision=True), When.BEFORE) for link in bench.links]
    client.send(query("COMMIT"))
    hits = [asyncio.create_task(trap.hit.wait()) for trap in traps]
    await asyncio.wait(hits, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    for hit in hits:
        hit.cancel()


@pytest.mark.parametrize("waits", [False, True])
async def test_slots(pair: Bench, waits: bool) -> None:
    """One transaction may be prepared at a time: the next waits for it, and not for ever."""
    await pair.start_proxy(slots_per_shard=1, slot_timeout=20000 if waits else 300, finish_timeout=1000)
    first = await _tables(pair)
    second = await login(pair)
    await first.query(f"BEGIN; {transfer((HERE, 1), (THERE, 2))}")
    await second.query(f"BEGIN; {transfer((MORE[0][0], 10), (MORE[1][0], 20))}")
    await _hold_decision(pair, first)
    assert await metric(pair, "pgshepherd_proxy_slots_used") == 2
    second.send(query("COMMIT"))
    if not waits:
        answer = await second.answer()
        assert (answer.sqlstate, answer.status) == ("53200", "I")
        assert "slots_per_shard" in answer.error["H"]
    for link in pair.links:
        link.heal()
    assert (await first.answer()).tags == ["COMMIT"]
    if waits:
        assert (await second.answer()).tags == ["COMMIT"]

    async def finished() -> bool:
        return await metric(pair, "pgshepherd_proxy_slots_used") == 0

    await until(finished)
    assert await total(pair) == (33 if waits else 3)
    assert (await second.query(f"BEGIN; {transfer((MORE[0][1], 100), (MORE[1][1], 200))}; COMMIT")).tags[-1] == "COMMIT"
    assert await metric(pair, "pgshepherd_proxy_slots_used") == 0
    assert await pair.prepared() == []


async def test_more_clients_than_slots(pair: Bench) -> None:
    """Each waits for its turn or gets 53200; nothing is half done, no slot is lost, and the servers never run out of theirs."""
    await pair.start_proxy(slots_per_shard=1, slot_timeout=30)
    await (await _tables(pair)).close()
    clients = [await login(pair) for _ in range(8)]
    keys = accounts_on(2, 40)

    async def work(number: int, client: RawClient) -> list[str]:
        told = []
        for nth in range(5):
            pairs = [(shard[number * 5 + nth], 1) for shard in keys]
            answer = await client.query(f"BEGIN; {transfer(*pairs)}; COMMIT")
            assert answer.status == "I"
            told.append(answer.sqlstate or answer.tags[-1])
        return told

    told = [each for one in await asyncio.gather(*(work(*each) for each in enumerate(clients))) for each in one]
    assert set(told) <= {"COMMIT", "53200"}
    assert await total(pair) == 2 * told.count("COMMIT") > 0
    assert await metric(pair, "pgshepherd_proxy_slots_used") == 0
    assert await pair.prepared() == []
    assert "maximum number of prepared transactions" not in pair.log()


TRIGGERS = """
CREATE TABLE picky (customer_id bigint, n int, UNIQUE (customer_id, n) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE parents (customer_id bigint PRIMARY KEY);
CREATE TABLE kids (customer_id bigint REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE loud (customer_id bigint);
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NOTIFY loud; RETURN NEW; END $$;
CREATE TRIGGER shout AFTER INSERT ON loud FOR EACH ROW EXECUTE FUNCTION shout();
CREATE TABLE temporary (customer_id bigint);
CREATE FUNCTION scratch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE scratch (a int) ON COMMIT DROP; RETURN NEW; END $$;
CREATE TRIGGER scratch AFTER INSERT ON temporary FOR EACH ROW EXECUTE FUNCTION scratch();
CREATE TABLE strict (customer_id bigint);
CREATE FUNCTION object() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not on my watch' USING ERRCODE = 'P4242'; END $$;
CREATE CONSTRAINT TRIGGER object AFTER INSERT ON strict DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION object();
GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def triggers(market: Bench) -> AsyncIterator[Bench]:
    await market.on_shards(TRIGGERS)
    yield market


@pytest.mark.parametrize(
    ("statement", "sqlstate", "says"),
    [
        ("INSERT INTO picky VALUES ({0}, 1), ({0}, 1)", "23505", "duplicate key value violates unique constraint"),
        ("INSERT INTO kids VALUES ({0})", "23503", "violates foreign key constraint"),
        ("INSERT INTO loud VALUES ({0})", "0A000", "cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY"),
        ("INSERT INTO temporary VALUES ({0})", "0A000", "cannot PREPARE a transaction that has operated on temporary objects"),
        ("INSERT INTO strict VALUES ({0})", "P4242", "not on my watch"),
    ],
)
async def test_what_prepare_refuses(triggers: Bench, statement: str, sqlstate: str, says: str) -> None:
    """Postgres's own error, nothing written on any shard, and the connection stays usable; whichever shard it is."""
    client = await login(triggers)
    aborted = await metric(triggers, COMMITS)
    before = await total(triggers)
    for victim, other in [(HERE, THERE), (THERE, HERE)]:
        for begin, end in [("BEGIN", "COMMIT"), ("SELECT 1", "SELECT 2")]:
            sql = f"{statement.format(victim)}; INSERT INTO accounts VALUES ({other}, 1)"
            answer = await client.query(f"{begin}; {sql}; {end}")
            assert (answer.sqlstate, answer.status) == (sqlstate, "I")
            assert says in answer.error["M"]
            assert (await client.query("SELECT 1")).rows == [("1",)]
    assert await metric(triggers, COMMITS) == aborted + 4
    assert await total(triggers) == before
    assert await triggers.prepared() == []
    for table in ("picky", "kids", "loud", "temporary", "strict"):
        assert await triggers.on_shards(f"SELECT count(*) FROM {table}") == ["0", "0"]


async def test_a_shard_that_only_reads_needs_no_two_phases(triggers: Bench) -> None:
    client = await login(triggers)
    before = await metric(triggers, COMMITS)
    await client.query(f"BEGIN; SELECT * FROM accounts WHERE customer_id = {HERE}; INSERT INTO accounts VALUES ({THERE}, 1)")
    assert (await client.query("COMMIT")).tags == ["COMMIT"]
    assert (await client.query(f"DELETE FROM accounts WHERE customer_id = {THERE}")).tags == ["DELETE 1"]
    assert await metric(triggers, COMMITS) == before
    assert await sessions(triggers, "state LIKE 'idle in transaction%'") == 0


async def test_a_deadlock_over_two_shards(pair: Bench) -> None:
    """No Postgres sees it: the proxy cancels exactly one, and the other commits."""
    await pair.start_proxy(deadlock_timeout=100)
    client = await _tables(pair)
    await client.query(transfer((HERE, 0), (THERE, 0)))
    clients = [client, await login(pair)]
    update = "UPDATE accounts SET balance = balance + {} WHERE customer_id = {}"
    await clients[0].query(f"BEGIN; {update.format(1, HERE)}")
    await clients[1].query(f"BEGIN; {update.format(10, THERE)}")
    clients[0].send(query(update.format(1, THERE)))
    clients[1].send(query(update.format(10, HERE)))

    async def finish(one: RawClient) -> Answer:
        answer = await one.answer()
        end = await one.query("COMMIT")
        assert end.tags == (["ROLLBACK"] if answer.sqlstate else ["COMMIT"])
        return answer

    answers = await asyncio.gather(*(finish(each) for each in clients))
    assert sorted(answer.sqlstate for answer in answers) == ["", "40P01"]
    victim = next(index for index, answer in enumerate(answers) if answer.sqlstate)
    assert answers[victim].error["M"] == "deadlock detected"
    assert await total(pair) == (20, 2)[victim]
    assert await metric(pair, "pgshepherd_proxy_deadlock_victims_total") == 1
    assert await pair.prepared() == []
    assert (await clients[victim].query(update.format(0, HERE))).tags == ["UPDATE 1"]
