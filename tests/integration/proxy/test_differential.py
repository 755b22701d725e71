"""The same random statements to one plain Postgres and to the proxy over two shards: the same rows, counts, errors and states."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import PASSWORD, Bench
from raw_client import SYNC, Answer, RawClient, bind, execute, parse, query


@dataclass(frozen=True)
class _Small:
    """An int4, where a key is an int8."""

    value: int

    def __str__(self) -> str:
        return str(self.value)


Key = int | str | UUID
TABLES = """
CREATE TABLE df_numbers (customer_id bigint PRIMARY KEY, n int);
CREATE TABLE words (word varchar PRIMARY KEY, n int);
CREATE TABLE things (thing uuid PRIMARY KEY, n int);
CREATE TABLE df_rates (name text PRIMARY KEY, n int);
"""
KEYS: dict[tuple[str, str], list[Key]] = {
    ("df_numbers", "customer_id"): [-(1 << 63), -1, 0, 1, 2, 3, 42, 1 << 40],
    ("words", "word"): ["", "a", "b", "ä", "O'Neil", "x y", "7"],
    ("things", "thing"): [UUID(int=n * (1 << 90) + n) for n in range(1, 8)],
    ("df_rates", "name"): ["x", "y", "z"],
}
CONTROL = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT a", "ROLLBACK TO a", "RELEASE a")
TEMPLATES = (
    "INSERT INTO {t} ({k}, n) VALUES ({key}, {n})",
    "INSERT INTO {t} (n, {k}) VALUES ({n}, {key}) RETURNING *",
    "INSERT INTO {t} ({k}, n) VALUES ({key}, {n}) ON CONFLICT ({k}) DO UPDATE SET n = excluded.n",
    "SELECT * FROM {t}",
    "SELECT {k}, n * 2 AS m FROM {t} WHERE n > {n}",
    "SELECT n FROM {t} WHERE {k} = {key}",
    "SELECT * FROM {t} WHERE {k} IN ({key}, {other}) AND n <> {n}",
    "SELECT count(*), sum(n), min({k}::text) FROM {t} WHERE {k} = {key}",
    "UPDATE {t} SET n = n + {n} WHERE {k} = {key} RETURNING n",
    "UPDATE {t} SET n = {n} WHERE {k} IN ({other}, {key})",
    "UPDATE {t} SET n = n * 100000 WHERE n > {n}",
    "DELETE FROM {t} WHERE {k} = {key}",
    "DELETE FROM {t} WHERE {k} IN ({key}, {other}) RETURNING n",
    "SELECT 10 / n FROM {t} WHERE {k} = {key}",
)


@dataclass(frozen=True)
class Op:
    """One statement; `how`: with literals, or with parameters as text or binary."""

    text: str
    values: tuple[Key | _Small, ...] = ()
    how: str = "simple"

    def message(self) -> bytes:
        if self.how == "simple":
            return query(self.text.format(*(_literal(value) for value in self.values)))
        marks = [f"${number}" for number in range(1, len(self.values) + 1)]
        sent = [_binary(value) if self.how == "binary" else str(value).encode() for value in self.values]
        return parse("", self.text.format(*marks)) + bind("", "", *sent, binary=self.how == "binary") + execute() + SYNC


def _literal(value: object) -> str:
    return str(value) if isinstance(value, int | _Small) else "'" + str(value).replace("'", "''") + "'"


def _binary(value: object) -> bytes:
    match value:
        case _Small():
            return struct.pack("!i", value.value)
        case int():
            return struct.pack("!q", value)
        case UUID():
            return value.bytes
        case _:
            return str(value).encode()


@st.composite
def statement(draw: st.DrawFn) -> Op:
    if draw(st.integers(0, 3)) == 0:
        return Op(draw(st.sampled_from(CONTROL)))
    (table, column), keys = draw(st.sampled_from(list(KEYS.items())))
    found = {"key": draw(st.sampled_from(keys)), "other": draw(st.sampled_from(keys)), "n": _Small(draw(st.integers(-1, 30000)))}
    template = draw(st.sampled_from(TEMPLATES))
    values: list[Key | _Small] = []
    for name, value in found.items():
        if "{" + name + "}" in template:
            template = template.replace("{" + name + "}", "{" + str(len(values)) + "}")
            values.append(value)
    return Op(
        template.replace("{t}", table).replace("{k}", column), tuple(values), draw(st.sampled_from(["simple", "text", "binary"]))
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def both(market: Bench) -> AsyncIterator[tuple[RawClient, RawClient]]:
    server = market.servers[0]
    await server.psql("CREATE DATABASE differential OWNER app")
    plain = await RawClient.login(server.port, PASSWORD, database="differential")
    await plain.query(TABLES)
    proxy = await RawClient.login(market.listen.port, PASSWORD)
    await proxy.query("; ".join(line for line in TABLES.split(";") if "df_" in line))
    RawClient.opened.clear()  # they live as long as the module
    yield plain, proxy
    RawClient.opened += [plain, proxy]
    await RawClient.close_all()
    await server.psql("DROP DATABASE differential WITH (FORCE)")


def _seen(answer: Answer) -> tuple[object, ...]:
    return (
        sorted(answer.rows, key=str),
        answer.tags,
        answer.sqlstate,
        answer.status,
        answer.warnings,
        answer.kinds.replace("D", ""),
    )


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(statement(), min_size=5, max_size=30))
async def test_the_same_answers(both: tuple[RawClient, RawClient], ops: list[Op]) -> None:
    for client in both:
        await client.query("ROLLBACK")
        for (table, column), keys in KEYS.items():
            await client.query(f"DELETE FROM {table}")
            for key in keys[::2]:
                await client.query(f"INSERT INTO {table} ({column}, n) VALUES ({_literal(key)}, 10)")
    for op in [*ops, Op("COMMIT"), *(Op(f"SELECT * FROM {table}") for table, _ in KEYS)]:
        expected, answer = [_seen(await client.ask(op.message())) for client in both]
        assert answer == expected, op
