"""Where statements go, by tables: answered right, or refused by name."""

from __future__ import annotations

import struct
from uuid import UUID

import pytest

from routing_context import CONTEXT
from shardproxy.errors import Refused, SqlError
from shardproxy.routing.analyze import analyze
from shardproxy.routing.hashing import shard_of
from shardproxy.routing.plan import Assembly, Kind, Param, Statement

HOME = 3
ALL = frozenset({0, 1, 2, 3})


def one(sql: str) -> Statement:
    (statement,) = analyze(sql, CONTEXT)
    return statement


def shards(sql: str, *parameters: Param) -> frozenset[int]:
    return one(sql).route.shards(parameters, count=4, home=HOME)


def key(value: int) -> frozenset[int]:
    return frozenset({shard_of("bigint", value, 4)})


BY_KEY = [
    "SELECT * FROM accounts WHERE customer_id = 7",
    "SELECT * FROM accounts WHERE 7 = customer_id",
    "SELECT * FROM accounts WHERE customer_id = '7'",
    "SELECT * FROM accounts WHERE customer_id = 7::int",
    "SELECT * FROM accounts WHERE customer_id = '7'::bigint AND balance > 3",
    "SELECT * FROM accounts WHERE customer_id IN (7)",
    "SELECT a.* FROM public.accounts AS a WHERE a.customer_id = 7",
    "SELECT count(*), sum(balance) FROM accounts WHERE customer_id = 7 GROUP BY name ORDER BY 1 LIMIT 3",
    "SELECT row_number() OVER () FROM accounts WHERE customer_id = 7",
    "SELECT * FROM accounts a JOIN orders o ON o.customer_id = a.customer_id WHERE a.customer_id = 7",
    "SELECT * FROM accounts a LEFT JOIN orders o ON o.customer_id = a.customer_id WHERE a.customer_id = 7",
    "SELECT * FROM accounts a JOIN orders o ON true WHERE a.customer_id = 7 AND o.customer_id = a.customer_id",
    "SELECT * FROM accounts a JOIN rates r ON r.rate = a.balance WHERE customer_id = 7",
    "SELECT (SELECT max FROM (SELECT 1 AS max) x) FROM accounts WHERE customer_id = 7",
    "SELECT * FROM accounts WHERE customer_id = 7 AND balance IN (SELECT rate FROM rates)",
    "SELECT * FROM accounts WHERE customer_id = 7 UNION ALL SELECT * FROM accounts WHERE customer_id = 7",
    "WITH a AS (SELECT * FROM accounts WHERE customer_id = 7) SELECT count(*) FROM a",
    "SELECT * FROM accounts WHERE customer_id = 7 FOR UPDATE",
    "INSERT INTO accounts (customer_id, balance) VALUES (7, 1)",
    "INSERT INTO accounts VALUES (7, 1, 'x')",
    "INSERT INTO accounts (customer_id, balance) VALUES (7, 1), (7, 2)",
    "INSERT INTO accounts (customer_id, balance) VALUES (7, 1) ON CONFLICT (customer_id) DO UPDATE SET balance = 0 RETURNING *",
    "INSERT INTO orders (customer_id, total) VALUES (7, 1)",
    "UPDATE accounts SET balance = balance + 1 WHERE customer_id = 7",
    "UPDATE accounts SET balance = (SELECT rate FROM rates LIMIT 1) WHERE customer_id = 7",
    "DELETE FROM accounts WHERE customer_id = 7 RETURNING *",
    "DELETE FROM accounts USING orders WHERE accounts.customer_id = 7 AND orders.customer_id = accounts.customer_id",
    "EXPLAIN ANALYZE SELECT * FROM accounts WHERE customer_id = 7",
]


@pytest.mark.parametrize("sql", BY_KEY)
def test_by_key(sql: str) -> None:
    assert shards(sql) == key(7)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SELECT now(), version()",
        "SELECT * FROM rates WHERE name = 'x' ORDER BY rate LIMIT 1",
        "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace",
        "SELECT * FROM information_schema.tables",
        "SELECT pg_advisory_unlock_all()",
        "SELECT pg_sleep(0)",
        "SHOW server_version",
        "VALUES (1), (2)",
        "SELECT * FROM accounts WHERE customer_id = NULL",
    ],
)
def test_home(sql: str) -> None:
    assert shards(sql) == {HOME}
    assert not one(sql).writes


@pytest.mark.parametrize(
    ("sql", "assembly", "writes"),
    [
        ("SELECT * FROM accounts", Assembly.CONCAT, False),
        ("SELECT lower(name), balance * 2 FROM accounts WHERE balance > 3", Assembly.CONCAT, False),
        ("SELECT * FROM accounts WHERE customer_id = 7 OR customer_id = 8", Assembly.CONCAT, False),
        ("SELECT * FROM accounts WHERE customer_id::text = '7'", Assembly.CONCAT, False),
        ("SELECT * FROM accounts WHERE customer_id = 7.0", Assembly.CONCAT, False),
        ("SELECT * FROM accounts WHERE customer_id = 99999999999999999999", Assembly.CONCAT, False),
        ("SELECT * FROM accounts WHERE NOT customer_id = 7", Assembly.CONCAT, False),
        ("SELECT * FROM accounts WHERE customer_id <> 7", Assembly.CONCAT, False),
        ("SELECT * FROM words WHERE word = 'a'::varchar(1)", Assembly.CONCAT, False),
        ("UPDATE accounts SET balance = 0 RETURNING *", Assembly.CONCAT, True),
        ("DELETE FROM accounts", Assembly.CONCAT, True),
        ("INSERT INTO rates (name, rate) VALUES ('x', 1)", Assembly.MIRROR, True),
        ("UPDATE rates SET rate = rate + abs(-1)", Assembly.MIRROR, True),
        ("DELETE FROM rates WHERE name = lower('X')", Assembly.MIRROR, True),
        ("INSERT INTO events (id, at) VALUES (1, '2026-01-01')", Assembly.MIRROR, True),
        ("CREATE TABLE t (id serial, x int DEFAULT 3)", Assembly.MIRROR, True),
        ("ALTER TABLE accounts ADD COLUMN x int", Assembly.MIRROR, True),
        ("CREATE INDEX ON accounts (balance)", Assembly.MIRROR, True),
        ("DROP TABLE accounts", Assembly.MIRROR, True),
        ("TRUNCATE accounts", Assembly.MIRROR, True),
    ],
)
def test_everywhere(sql: str, assembly: Assembly, writes: bool) -> None:
    assert shards(sql) == ALL
    assert (one(sql).assembly, one(sql).writes) == (assembly, writes)


REFUSED = [
    "SELECT count(*) FROM accounts",
    "SELECT * FROM accounts ORDER BY balance",
    "SELECT * FROM accounts LIMIT 1",
    "SELECT DISTINCT name FROM accounts",
    "SELECT name FROM accounts GROUP BY name",
    "SELECT row_number() OVER () FROM accounts",
    "SELECT generate_series(1, balance) FROM accounts",
    "SELECT * FROM accounts a JOIN orders o ON o.customer_id = a.customer_id",
    "SELECT * FROM accounts a LEFT JOIN orders o ON a.customer_id = o.customer_id WHERE o.customer_id = 7",
    "SELECT * FROM accounts a RIGHT JOIN orders o ON a.customer_id = o.customer_id WHERE a.customer_id = 7",
    "SELECT * FROM accounts a FULL JOIN orders o ON a.customer_id = o.customer_id WHERE a.customer_id = 7",
    "SELECT * FROM accounts a JOIN orders o ON o.total = a.balance WHERE a.customer_id = 7",
    "SELECT * FROM rates WHERE rate IN (SELECT balance FROM accounts)",
    "SELECT * FROM accounts UNION SELECT * FROM accounts",
    "SELECT * FROM (SELECT * FROM accounts) x",
    "SELECT * FROM accounts FOR UPDATE",
    "SELECT * FROM rates FOR UPDATE",
    "SELECT * INTO x FROM rates",
    "SELECT mine(1)",
    "SELECT nextval('s')",
    "SELECT pg_notify('a', 'b')",
    "SELECT set_config('work_mem', '1MB', true)",
    "SELECT set_config('jit', now()::text, false)",
    "SELECT pg_advisory_lock(1)",
    "SELECT unknown_function(1)",
    "SELECT other.lower('x')",
    "SELECT * FROM accounts_view",
    "SELECT * FROM wrong",
    "SELECT * FROM pgshepherd.commit_record",
    "INSERT INTO pgshepherd.commit_record DEFAULT VALUES",
    "DROP TABLE pgshepherd.shard",
    "INSERT INTO accounts (balance) VALUES (1)",
    "INSERT INTO accounts DEFAULT VALUES",
    "INSERT INTO accounts (customer_id) VALUES (DEFAULT)",
    "INSERT INTO accounts (customer_id) VALUES (3 + 4)",
    "INSERT INTO accounts (customer_id) VALUES ((SELECT 7))",
    "INSERT INTO accounts SELECT * FROM rates",
    "INSERT INTO accounts (customer_id) VALUES (7) ON CONFLICT (customer_id) DO UPDATE SET customer_id = 8",
    "UPDATE accounts SET customer_id = 8 WHERE customer_id = 7",
    "UPDATE accounts SET balance = rate FROM rates",
    "UPDATE accounts SET balance = (SELECT max(rate) FROM rates)",
    "UPDATE rates SET rate = random()",
    "INSERT INTO events (id, at) VALUES (1, now())",
    "INSERT INTO events (id, at) VALUES (1, CURRENT_TIMESTAMP)",
    "INSERT INTO events (id) VALUES (1)",
    "INSERT INTO events VALUES (1)",
    "INSERT INTO events (id, at) VALUES (1, DEFAULT)",
    "INSERT INTO audited VALUES (1)",
    "INSERT INTO rates SELECT name, balance FROM accounts",
    "WITH x AS (DELETE FROM accounts RETURNING *) SELECT * FROM x",
    "WITH RECURSIVE x AS (SELECT 1 AS a UNION ALL SELECT a FROM x JOIN accounts ON true WHERE customer_id = 7) SELECT * FROM x",
    "WITH RECURSIVE x AS (SELECT 1) DELETE FROM rates WHERE rate IN (SELECT * FROM x)",
    "CREATE TEMP TABLE t (x int)",
    "ALTER TABLE pg_class ADD COLUMN x int",
    "CREATE INDEX ON pg_catalog.pg_class (relname)",
    "TRUNCATE accounts, pg_catalog.pg_attribute",
    "DROP TABLE accounts, pg_class",
    "COMMENT ON TABLE pg_catalog.pg_class IS 'x'",
    "ALTER TABLE pg_class RENAME TO x",
    "CREATE INDEX CONCURRENTLY ON accounts (balance)",
    "CREATE VIEW v AS SELECT 1",
    "VACUUM",
    "COPY accounts FROM STDIN",
    "LISTEN x",
    "LOCK TABLE accounts",
    "DO 'begin end'",
    "PREPARE x AS SELECT 1",
    "DECLARE c CURSOR FOR SELECT 1",
    "MERGE INTO rates USING accounts ON true WHEN MATCHED THEN DELETE",
    "SET ROLE app",
    "SET SESSION AUTHORIZATION app",
    "SET search_path = x",
    "SET standard_conforming_strings = off",
    "SET client_encoding = latin1",
    "SET session_replication_role = replica",
    "SET default_transaction_isolation = 'serializable'",
    "COMMIT AND CHAIN",
    "EXPLAIN SELECT * FROM accounts",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_refused(sql: str) -> None:
    with pytest.raises(Refused) as caught:
        shards(sql)
    assert caught.value.hint, "the way round is named"


@pytest.mark.parametrize("sql", [f"{verb} FROM accounts WHERE customer_id IN (1, 2, 3, 4)" for verb in ("SELECT *", "DELETE")])
def test_some_shards(sql: str) -> None:
    assert shards(sql) == key(1) | key(2) | key(3) | key(4)
    assert one(sql).assembly is Assembly.CONCAT


def test_keys_on_several_shards_are_refused_where_one_shard_is_needed() -> None:
    with pytest.raises(Refused):
        shards("SELECT count(*) FROM accounts WHERE customer_id IN (1, 2, 3, 4)")
    with pytest.raises(Refused):
        shards("INSERT INTO accounts (customer_id) VALUES (1), (2), (3), (4)")


PARAMETERS = [
    Param(b"7"),
    Param(struct.pack("!q", 7), True),
    Param(struct.pack("!i", 7), True, 23),
    Param(struct.pack("!h", 7), True, 21),
    Param(b" 7", False, 20),
]


@pytest.mark.parametrize("parameter", PARAMETERS)
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM accounts WHERE customer_id = $1",
        "SELECT * FROM accounts WHERE customer_id = $1::bigint",
        "UPDATE accounts SET balance = 1 WHERE customer_id IN ($1)",
        "INSERT INTO accounts (customer_id) VALUES ($1)",
    ],
)
def test_parameters(sql: str, parameter: Param) -> None:
    assert shards(sql, parameter) == key(7)


@pytest.mark.parametrize(
    "parameter",
    [Param(b"7", False, 1700), Param(struct.pack("!d", 7), True, 701), Param(b"\0\0\7", True), Param(b"7", False, 1042)],
)
def test_parameters_that_do_not_compare_as_they_are(parameter: Param) -> None:
    with pytest.raises(Refused):
        shards("SELECT * FROM accounts WHERE customer_id = $1", parameter)


def test_a_parameter_that_is_another_type_elsewhere_is_no_key() -> None:
    assert shards("SELECT * FROM accounts WHERE balance = $1::float8 AND customer_id = $1", Param(b"7")) == ALL


def test_null_parameters() -> None:
    assert shards("SELECT * FROM accounts WHERE customer_id = $1", Param(None)) == {HOME}
    with pytest.raises(Refused):
        shards("INSERT INTO accounts (customer_id) VALUES ($1)", Param(None))


def test_text_and_uuid_keys() -> None:
    assert shards("SELECT * FROM words WHERE word = 'test_value'") == {shard_of("varchar", "test_value", 4)}
    assert shards("SELECT * FROM words WHERE word = $1", Param(b"test_value", True)) == {shard_of("varchar", "test_value", 4)}
    value = UUID("11111111-1111-1111-1111-111111111111")
    for parameter in (Param(str(value).encode()), Param(value.bytes, True, 2950)):
        assert shards("SELECT * FROM things WHERE thing = $1", parameter) == {shard_of("uuid", value, 4)}


def test_a_word_column_of_another_table_is_no_key() -> None:
    assert shards("SELECT * FROM rates WHERE name = 'a'") == {HOME}


def test_many_statements_keep_their_texts() -> None:
    found = analyze("BEGIN; SELECT 'ä;'; -- c\n COMMIT ;", CONTEXT)
    assert [statement.kind for statement in found] == [Kind.BEGIN, Kind.QUERY, Kind.COMMIT]
    assert found[1].text == "SELECT 'ä;'"
    reset = analyze("SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;", CONTEXT)
    assert [statement.kind for statement in reset] == [Kind.QUERY, Kind.CLOSE_ALL, Kind.UNLISTEN_ALL, Kind.RESET_ALL]


@pytest.mark.parametrize(
    ("sql", "kind", "isolation"),
    [
        ("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", Kind.BEGIN, "serializable"),
        ("START TRANSACTION ISOLATION LEVEL READ COMMITTED", Kind.BEGIN, None),
        ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", Kind.SET_TRANSACTION, "repeatable read"),
        ("SAVEPOINT x", Kind.SAVEPOINT, None),
        ("ROLLBACK TO SAVEPOINT x", Kind.ROLLBACK_TO, None),
        ("ABORT", Kind.ROLLBACK, None),
        ("END", Kind.COMMIT, None),
        ("SET LOCAL statement_timeout = 5", Kind.SET, None),
        ("RESET statement_timeout", Kind.RESET, None),
        ("DISCARD ALL", Kind.DISCARD_ALL, None),
        ("DEALLOCATE ALL", Kind.DEALLOCATE, None),
    ],
)
def test_control(sql: str, kind: Kind, isolation: str | None) -> None:
    assert (one(sql).kind, one(sql).isolation) == (kind, isolation)


@pytest.mark.parametrize("sql", ["PREPARE TRANSACTION 'x'", "COMMIT PREPARED 'x'", "ROLLBACK PREPARED 'x'"])
def test_prepared_transactions_are_ours(sql: str) -> None:
    with pytest.raises(SqlError) as caught:
        one(sql)
    assert caught.value.sqlstate == "42601"


def test_a_syntax_error_has_its_position() -> None:
    with pytest.raises(SqlError) as caught:
        one("SELECT 1 FRM x y")
    assert (caught.value.sqlstate, caught.value.position) == ("42601", 14)


def test_an_unknown_table_is_noted() -> None:
    assert one("SELECT * FROM nowhere").unknown_relations == {"nowhere"}


def test_jit_is_set_for_the_statement_only() -> None:
    found = one("SELECT current_setting('jit') AS cur,\n set_config('jit', 'off', FALSE) AS \"ä\"")
    assert (found.text, found.rewritten) == (
        "SELECT current_setting('jit') AS cur,\n set_config('jit', 'off', true ) AS \"ä\"",
        True,
    )
    assert one("SELECT set_config('jit', $1, true)").rewritten is False


def test_recursion_over_what_every_shard_has() -> None:
    sql = "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t JOIN rates ON rate = a WHERE a < 5) SELECT * FROM t"
    assert shards(sql) == {HOME}


def test_a_clients_own_application_name_is_shown() -> None:
    found = one("SHOW application_name")
    assert (found.kind, found.rewritten) == (Kind.SHOW, True)


@pytest.mark.parametrize(
    ("sql", "construct"),
    [("FETCH 1 FROM c", "FETCH and MOVE"), ("DECLARE c CURSOR FOR SELECT 1", "DECLARE CURSOR"), ("COPY rates TO STDOUT", "COPY")],
)
def test_refusals_name_the_construct(sql: str, construct: str) -> None:
    with pytest.raises(Refused, match=f"the statement {construct}$"):
        one(sql)


def test_too_deep() -> None:
    with pytest.raises(SqlError) as caught:
        one("SELECT " + "||".join(["'a'"] * 1000))
    assert caught.value.sqlstate == "54001"
