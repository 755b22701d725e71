"""What is answered and what is refused, on real shards: every refusal is 0A000, names the construct and the way round."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bench import PASSWORD, Bench, accounts_on
from raw_client import SYNC, RawClient, one, query

HERE, THERE = (shard[0] for shard in accounts_on(2))

TABLES = """
CREATE TABLE st_accounts (customer_id bigint PRIMARY KEY, balance bigint NOT NULL DEFAULT 0, name text);
CREATE TABLE st_orders (id bigint, customer_id bigint, total int, at timestamptz DEFAULT now());
CREATE TABLE st_rates (name text PRIMARY KEY, rate int NOT NULL);
CREATE TABLE st_events (id serial, at timestamptz DEFAULT now());
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def statements(market: Bench) -> AsyncIterator[Bench]:
    client = await market.client()
    await client.execute(TABLES)
    await client.close()
    await market.on_shards(
        "CREATE VIEW st_view AS SELECT * FROM st_accounts; CREATE SEQUENCE st_sequence; GRANT ALL ON st_view TO app;"
        "CREATE FUNCTION st_function() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE MATERIALIZED VIEW st_stored AS SELECT 1 AS a"
    )
    yield market


REFUSED = {
    "COPY st_accounts FROM STDIN": "COPY",
    "COPY (SELECT 1) TO STDOUT": "COPY",
    "DECLARE c CURSOR FOR SELECT 1": "DECLARE CURSOR",
    "FETCH 1 FROM c": "FETCH and MOVE",
    "CLOSE c": "CLOSE of a cursor",
    "LISTEN channel": "LISTEN",
    "NOTIFY channel": "NOTIFY",
    "PREPARE p AS SELECT 1": "PREPARE",
    "EXECUTE p": "EXECUTE",
    "LOCK TABLE st_rates": "LOCK",
    "DO 'BEGIN END'": "DO",
    "CALL st_procedure()": "CALL",
    "MERGE INTO st_rates USING (SELECT 1 AS a) s ON true WHEN MATCHED THEN DELETE": "MERGE",
    "VACUUM st_rates": "VACUUM",
    "ANALYZE st_rates": "VACUUM",
    "CLUSTER st_rates": "CLUSTER",
    "REINDEX TABLE st_rates": "REINDEX",
    "CHECKPOINT": "CHECK POINT",
    "CREATE VIEW v AS SELECT 1": "VIEW",
    "CREATE TABLE t AS SELECT 1": "CREATE TABLE AS",
    "CREATE SEQUENCE s": "CREATE SEQ",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'": "CREATE FUNCTION",
    "CREATE TRIGGER t AFTER INSERT ON st_rates EXECUTE FUNCTION f()": "CREATE TRIG",
    "CREATE DATABASE d": "CREATEDB",
    "CREATE ROLE r": "CREATE ROLE",
    "CREATE EXTENSION e": "CREATE EXTENSION",
    "CREATE SCHEMA s": "CREATE SCHEMA",
    "CREATE TYPE t AS ENUM ('a')": "CREATE ENUM",
    "CREATE INDEX CONCURRENTLY ON st_rates (rate)": "CREATE INDEX CONCURRENTLY",
    "DROP INDEX CONCURRENTLY st_rates_pkey": "DROP INDEX CONCURRENTLY",
    "CREATE TEMP TABLE t (a int)": "temporary tables",
    "CREATE TABLE pg_temp.t (a int)": "temporary tables",
    "DROP VIEW st_view": "DDL on view",
    "DROP SCHEMA public CASCADE": "DDL on schema",
    "GRANT ALL ON st_rates TO app": "GRANT",
    "REFRESH MATERIALIZED VIEW st_stored": "REFRESH MAT VIEW",
    "ALTER SYSTEM SET work_mem = 1": "ALTER SYSTEM",
    "ALTER ROLE app SET work_mem = 1": "ALTER ROLE SET",
    "LOAD 'auto_explain'": "LOAD",
    "IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c": "IMPORT FOREIGN SCHEMA",
    "SET ROLE app": "SET role",
    "SET SESSION AUTHORIZATION app": "SET session_authorization",
    "SET search_path = a": "SET search_path",
    "SET LOCAL search_path = a": "SET search_path",
    "SET session_replication_role = replica": "SET session_replication_role",
    "RESET ROLE": "SET role",
    "SET TRANSACTION SNAPSHOT '0'": "SET TRANSACTION SNAPSHOT",
    "DISCARD TEMP": "DISCARD",
    "SELECT nextval('st_sequence')": "the function nextval()",
    "SELECT pg_notify('a', 'b')": "the function pg_notify()",
    "SELECT set_config('work_mem', '1MB', false)": "the function set_config()",
    "SELECT pg_advisory_xact_lock(1)": "the function pg_advisory_xact_lock()",
    "SELECT lo_create(0)": "the function lo_create()",
    "SELECT pg_terminate_backend(1)": "the function pg_terminate_backend()",
    "SELECT st_function()": "the function st_function()",
    "SELECT * FROM st_view": "st_view, which is no table",
    "SELECT * FROM st_stored": "st_stored, which is no table",
    "SELECT * FROM st_sequence": "st_sequence, which is no table",
    "SELECT * FROM pgshepherd.shard": "access to the schema pgshepherd",
    "DELETE FROM pgshepherd.commit_record": "access to the schema pgshepherd",
    "DELETE FROM pg_class": "a write to a system catalog",
    "SELECT 1 INTO t": "SELECT INTO",
    "SELECT count(*) FROM st_accounts": "count() over several shards",
    "SELECT * FROM st_accounts ORDER BY 1": "ORDER BY over several shards",
    "SELECT * FROM st_accounts LIMIT 1": "LIMIT over several shards",
    "SELECT * FROM st_accounts OFFSET 1": "OFFSET over several shards",
    "SELECT DISTINCT name FROM st_accounts": "DISTINCT over several shards",
    "SELECT name FROM st_accounts GROUP BY name": "GROUP BY over several shards",
    "SELECT * FROM st_accounts FOR UPDATE": "FOR UPDATE over several shards",
    "SELECT * FROM st_accounts a, st_orders o": "a join over several shards",
    "SELECT * FROM st_accounts UNION SELECT * FROM st_accounts": "a set operation over several shards",
    "SELECT * FROM st_accounts NATURAL JOIN st_orders": "NATURAL JOIN",
    "SELECT * FROM st_rates WHERE rate IN (SELECT balance FROM st_accounts)": "a subquery over several shards",
    "SELECT rank() OVER (ORDER BY balance) FROM st_accounts": "rank() over several shards",
    f"SELECT sum(balance) FROM st_accounts WHERE customer_id IN ({HERE}, {THERE})": "this statement over several shards",
    f"INSERT INTO st_accounts VALUES ({HERE}, 1), ({THERE}, 1)": "this statement over several shards",
    "INSERT INTO st_accounts (balance) VALUES (1)": "an INSERT without the sharding key customer_id",
    "INSERT INTO st_accounts VALUES (NULL, 1)": "a row whose sharding key is NULL",
    "INSERT INTO st_accounts VALUES (1 + 1, 1)": "not a plain literal or parameter",
    "INSERT INTO st_accounts SELECT 1, 2": "INSERT ... SELECT",
    f"UPDATE st_accounts SET customer_id = 5 WHERE customer_id = {HERE}": "an UPDATE of the sharding key",
    "INSERT INTO st_events (id) VALUES (1)": "that leaves at to its default",
    "INSERT INTO st_rates VALUES ('a', random()::int)": "a function whose result may differ between shards",
    "UPDATE st_rates SET rate = (SELECT max(balance) FROM st_accounts)": "a sharded table in a write to an omnisharded one",
    "SELECT * FROM st_rates FOR UPDATE": "FOR UPDATE on an omnisharded table",
    "WITH a AS (DELETE FROM st_accounts RETURNING *) SELECT * FROM a": "a WITH query that writes",
    "WITH RECURSIVE a AS (SELECT customer_id FROM st_accounts) SELECT * FROM a": "WITH RECURSIVE on a sharded table",
    "EXPLAIN SELECT * FROM st_accounts": "EXPLAIN of a statement over several shards",
    "COMMIT AND CHAIN": "AND CHAIN",
}


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
async def test_refused(statements: Bench, extended: bool) -> None:
    client = await RawClient.login(statements.listen.port, PASSWORD)
    wrong = {}
    for sql, construct in REFUSED.items():
        answer = await client.ask(one(sql) + SYNC if extended else query(sql))
        error = answer.error
        named = error.get("M", "").startswith("pgshepherd does not support") and construct in error.get("M", "")
        if answer.sqlstate != "0A000" or answer.status != "I" or not named or not error.get("H"):
            wrong[sql] = error or answer.tags
    assert wrong == {}
    for shard in await statements.on_shards("SELECT count(*) FROM pg_class WHERE relname IN ('t', 'v', 's')"):
        assert shard == "0"


WORKS = [
    "SELECT 1",
    "SELECT version(), now(), current_user, current_setting('server_version')",
    "SELECT * FROM generate_series(1, 3) g",
    "VALUES (1, 'a'), (2, 'b')",
    "TABLE st_rates",
    "SHOW server_version",
    "SHOW ALL",
    f"INSERT INTO st_accounts (name, customer_id) VALUES ('a;b', {HERE}) RETURNING *",
    f"INSERT INTO st_accounts VALUES ({THERE}, 7) ON CONFLICT (customer_id) DO UPDATE SET balance = st_accounts.balance + 1",
    f"INSERT INTO st_orders (customer_id, id) VALUES ({HERE}, 1), ({HERE}, 2)",
    "INSERT INTO st_rates VALUES ('a', 1), ('b', 2) ON CONFLICT DO NOTHING",
    "INSERT INTO st_events (id, at) VALUES (1, '2026-01-01')",
    "SELECT * FROM st_accounts",
    "SELECT upper(name), balance * 2 FROM st_accounts WHERE balance >= 0",
    f"SELECT * FROM st_accounts WHERE customer_id IN ({HERE}, {THERE})",
    f"SELECT count(*), max(balance) FROM st_accounts WHERE customer_id = {HERE} GROUP BY name ORDER BY 1 LIMIT 5",
    f"SELECT * FROM st_accounts a JOIN st_orders o ON o.customer_id = a.customer_id WHERE a.customer_id = {HERE} ORDER BY o.id",
    f"SELECT * FROM st_accounts a LEFT JOIN st_rates r ON r.rate = a.balance WHERE a.customer_id = {HERE}",
    f"WITH mine AS (SELECT * FROM st_accounts WHERE customer_id = {HERE}) SELECT count(*) FROM mine",
    f"SELECT * FROM st_accounts WHERE customer_id = {HERE} FOR UPDATE",
    "SELECT name, count(*) OVER () FROM st_rates ORDER BY name DESC LIMIT 1",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT sum(n) FROM t",
    f"UPDATE st_accounts SET balance = balance + 1 WHERE customer_id = {HERE} RETURNING balance",
    "UPDATE st_accounts SET balance = balance + 1",
    "UPDATE st_rates SET rate = rate + 1 WHERE name = 'a'",
    f"DELETE FROM st_orders WHERE customer_id = {HERE} AND id = 2",
    "DELETE FROM st_rates WHERE name = 'b' RETURNING name",
    f"EXPLAIN SELECT * FROM st_accounts WHERE customer_id = {HERE}",
    "CREATE TABLE st_more (customer_id bigint, a int CHECK (a > 0))",
    "ALTER TABLE st_more ADD COLUMN b text DEFAULT 'x'",
    "CREATE INDEX st_more_a ON st_more (a)",
    f"INSERT INTO st_more VALUES ({HERE}, 1)",
    "COMMENT ON TABLE st_more IS 'more'",
    "ALTER TABLE st_more RENAME COLUMN a TO c",
    "TRUNCATE st_more",
    "DROP INDEX st_more_a",
    "DROP TABLE st_more",
    "DROP TABLE IF EXISTS st_more",
    "SET statement_timeout = '1min'",
    "SET TIME ZONE 'UTC'",
    "RESET statement_timeout",
    "SELECT pg_advisory_unlock_all()",
    "CLOSE ALL",
    "UNLISTEN *",
    "DEALLOCATE ALL",
    "RESET ALL",
    "DISCARD ALL",
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "RELEASE a",
    "END",
    "START TRANSACTION",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    f"SELECT 1 FROM st_accounts WHERE customer_id = {THERE}",
    "ABORT",
]


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
async def test_works_as_on_one_postgres(statements: Bench, extended: bool) -> None:
    """In this order, with the same answers' shapes as a plain Postgres that holds all rows."""
    server = statements.servers[2] if len(statements.servers) > 2 else statements.servers[0]
    name = f"plain_{'extended' if extended else 'simple'}"
    await server.psql(f"CREATE DATABASE {name} OWNER app")
    plain = await RawClient.login(server.port, PASSWORD, database=name)
    await plain.query(TABLES)
    client = await RawClient.login(statements.listen.port, PASSWORD)
    await client.query("DELETE FROM st_accounts; DELETE FROM st_orders; DELETE FROM st_rates; DELETE FROM st_events")
    wrong = {}
    for sql in WORKS:
        asked = one(sql) + SYNC if extended else query(sql)
        answer, expected = await client.ask(asked), await plain.ask(asked)
        same = (answer.tags, answer.status, answer.sqlstate) == (expected.tags, expected.status, expected.sqlstate)
        volatile = any(word in sql for word in ("version", "SHOW", "EXPLAIN", "now()", "st_orders o"))
        if not volatile and "S" not in answer.kinds:
            same = same and (sorted(answer.rows, key=str), answer.kinds) == (sorted(expected.rows, key=str), expected.kinds)
        if answer.sqlstate or not (same or "SHOW" in sql):
            wrong[sql] = (answer.error or (answer.kinds, answer.tags), expected.error or (expected.kinds, expected.tags))
    assert wrong == {}
    await plain.close()
    await server.psql(f"DROP DATABASE {name} WITH (FORCE)")


async def test_ddl_counts_for_others_when_it_is_committed(statements: Bench) -> None:
    """A table that becomes sharded in a transaction that is rolled back stays what it was, for everybody."""
    first, second = [await RawClient.login(statements.listen.port, PASSWORD) for _ in range(2)]
    await first.query("CREATE TABLE st_plain (a int PRIMARY KEY)")
    assert (await first.query("INSERT INTO st_plain VALUES (1)")).tags == ["INSERT 0 1"]
    read, sharded = "SELECT a FROM st_plain", "SELECT customer_id FROM st_plain"
    for end, rows in [("ROLLBACK", [("1",)]), ("COMMIT", [("1",), ("1",)])]:
        await first.query("BEGIN; SAVEPOINT a; ALTER TABLE st_plain ADD COLUMN customer_id bigint")
        assert (await first.query(sharded)).rows == [(None,), (None,)], "its own DDL is seen"
        await first.query("ROLLBACK TO a")
        assert (await first.query(read)).rows == [("1",)]
        await first.query("ALTER TABLE st_plain ADD COLUMN customer_id bigint")
        assert (await first.query(read)).rows == [("1",), ("1",)]
        second.send(query(read)) if end == "ROLLBACK" else None
        await first.query(end)
        assert (await second.answer() if end == "ROLLBACK" else await second.query(read)).rows == rows
        assert (await second.query(read)).rows == rows
        assert (await first.query(read)).rows == rows
    await first.query("DROP TABLE st_plain")
    assert (await second.query(read)).sqlstate == "42P01"
