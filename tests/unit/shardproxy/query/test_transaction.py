"""What a late shard must catch up on, savepoints, names of statements, cycles of waits, answers made one."""

from __future__ import annotations

import pytest

from shardproxy.backend.connection import ServerConnection, ShardAddress
from shardproxy.errors import Refused, SqlError
from shardproxy.protocol import messages as pg
from shardproxy.protocol.wire import Wire
from shardproxy.query.assembly import check_descriptions, combined_tag
from shardproxy.query.commit import Link
from shardproxy.query.deadlock import find_cycle
from shardproxy.query.prepared import STATEMENTS_PER_CONNECTION, ClientObjects, Portal, Prepared, ensure, server_name
from shardproxy.query.relay import Reply
from shardproxy.query.transaction import Joined, Replay, Transaction
from shardproxy.routing.plan import Assembly, Kind, Statement


def connection() -> ServerConnection:
    return ServerConnection(Wire(), ShardAddress(0, 0, "h", 1, "d"), "app", {}, (0, 0))


def transaction(*log: Replay, isolation: str | None = None, joined: int = 0) -> Transaction:
    parts = {position: Joined(Link(connection(), None)) for position in range(joined)}
    return Transaction(explicit=True, isolation=isolation, joined=parts, log=list(log))


A, B, C = Replay("SAVEPOINT a", savepoint="a"), Replay("SAVEPOINT b", savepoint="b"), Replay("SAVEPOINT a", savepoint="a")
S, T = Replay("SET LOCAL x = 1"), Replay("SET LOCAL x = 2")


@pytest.mark.parametrize(
    ("log", "name", "left"),
    [
        ([A], "a", [A]),
        ([A, S, B, T], "a", [A]),
        ([S, A, T, B], "b", [S, A, T, B]),
        ([A, S, C, T], "a", [A, S, C]),
        ([S, A], "b", None),
        ([], "a", None),
    ],
)
def test_rolling_back_to_a_savepoint(log: list[Replay], name: str, left: list[Replay] | None) -> None:
    one = transaction(*log)
    assert one.roll_back_to(name) is (left is not None)
    assert one.log == (left if left is not None else log)


@pytest.mark.parametrize(
    ("log", "name", "left"),
    [
        ([A], "a", []),
        ([A, S, B, T], "a", [S, T]),
        ([A, S, B, T], "b", [A, S, T]),
        ([A, S, C, T], "a", [A, S, T]),
        ([S], "a", None),
    ],
)
def test_releasing_a_savepoint(log: list[Replay], name: str, left: list[Replay] | None) -> None:
    one = transaction(*log)
    assert one.release(name) is (left is not None)
    assert one.log == (left if left is not None else log)


def test_a_late_shard_hears_it_all_once() -> None:
    one = transaction(S, A, joined=2)
    one.joined[0].begun = True
    assert one.prefix(0) == []
    assert one.prefix(1) == ["BEGIN", "SET LOCAL x = 1", "SAVEPOINT a"]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_one_snapshot_is_on_one_shard(isolation: str) -> None:
    transaction(isolation=isolation, joined=1).check_joins(frozenset({0}))
    with pytest.raises(Refused, match=isolation.upper()):
        transaction(isolation=isolation, joined=1).check_joins(frozenset({1}))
    with pytest.raises(Refused):
        transaction(isolation=isolation).check_joins(frozenset({0, 1}))
    transaction(joined=1).check_joins(frozenset({0, 1}))


def test_status() -> None:
    one = transaction()
    assert one.status == "T"
    one.failed = True
    assert one.status == "E"


CYCLES: list[tuple[dict[int, set[int]], set[int] | None]] = [
    ({}, None),
    ({1: {2}}, None),
    ({1: {2}, 2: {3}}, None),
    ({1: {2, 3}, 2: {4}, 3: {4}, 4: set()}, None),
    ({1: {2}, 2: {1}}, {1, 2}),
    ({1: {2}, 2: {3}, 3: {1}}, {1, 2, 3}),
    ({0: {1}, 1: {2}, 2: {1}}, {1, 2}),
    ({5: {6}, 1: {2, 3}, 3: {4}, 4: {1}}, {1, 3, 4}),
]


@pytest.mark.parametrize(("edges", "cycle"), CYCLES)
def test_cycles_of_waits(edges: dict[int, set[int]], cycle: set[int] | None) -> None:
    found = find_cycle({node: frozenset(others) for node, others in edges.items()})
    assert (set(found) if found is not None else None) == cycle


def prepared(name: str, sql: str = "SELECT 1") -> Prepared:
    return Prepared(name, sql, (), Statement(sql, Kind.QUERY), server_name(sql, ()) if name else "")


def test_names_of_a_batch_that_failed_may_be_used_again() -> None:
    objects = ClientObjects()
    objects.add(prepared("kept"))
    objects.settle()
    objects.add(prepared("new"))
    assert objects.is_taken("new")
    objects.doubt()
    objects.settle()
    assert (objects.is_taken("kept"), objects.is_taken("new")) == (True, False)
    assert objects.statement("new").name == "new"
    objects.add(prepared("new"))
    assert objects.is_taken("new")
    with pytest.raises(SqlError, match='"none" does not exist'):
        objects.statement("none")
    with pytest.raises(SqlError, match='portal "p" does not exist'):
        objects.portal("p")
    objects.portals["p"] = Portal(prepared("new"), pg.Bind("p", "new", (), (), b""))
    assert objects.portal("p").prepared.name == "new"


def test_a_text_has_one_name_on_every_server() -> None:
    assert server_name("SELECT 1", ()) == server_name("SELECT 1", ())
    assert server_name("SELECT 1", ()) != server_name("SELECT 1", (20,))


def test_a_server_parses_a_statement_once() -> None:
    server, named = connection(), prepared("a")
    data, expects = ensure(server, named)
    assert data == pg.parse(named.on_server, "SELECT 1")
    for expect in expects:
        assert expect.then is not None
        expect.then()
    assert ensure(server, named) == (b"", [])


def test_a_server_forgets_the_unnamed_statement() -> None:
    server, unnamed = connection(), prepared("")
    for expect in ensure(server, unnamed)[1]:
        assert expect.then is not None
        expect.then()
    assert ensure(server, unnamed) == (b"", [])
    server.send_query("BEGIN")
    assert ensure(server, unnamed)[0] == pg.parse("", "SELECT 1")


def test_the_statement_used_longest_ago_makes_room() -> None:
    server = connection()
    server.statements = dict.fromkeys((f"s{number}" for number in range(STATEMENTS_PER_CONNECTION)), None)
    data, expects = ensure(server, prepared("a", "SELECT 'new'"))
    assert data.startswith(pg.close("S", "s0"))
    assert len(expects) == 2
    assert "s0" not in server.statements


@pytest.mark.parametrize(
    ("assembly", "tags", "tag"),
    [
        (Assembly.CONCAT, ["SELECT 1", "SELECT 2"], "SELECT 3"),
        (Assembly.CONCAT, ["UPDATE 0", "UPDATE 0"], "UPDATE 0"),
        (Assembly.CONCAT, ["INSERT 0 2", "INSERT 0 3"], "INSERT 0 5"),
        (Assembly.CONCAT, ["BEGIN", "BEGIN"], "BEGIN"),
        (Assembly.CONCAT, [], ""),
        (Assembly.MIRROR, ["INSERT 0 1", "INSERT 0 1"], "INSERT 0 1"),
        (Assembly.MIRROR, ["CREATE TABLE", "CREATE TABLE"], "CREATE TABLE"),
    ],
)
def test_tags_made_one(assembly: Assembly, tags: list[str], tag: str) -> None:
    assert combined_tag(assembly, [Reply(tags=[one]) for one in tags]) == tag


def test_shards_that_differ() -> None:
    with pytest.raises(SqlError, match="different rows of an omnisharded table") as caught:
        combined_tag(Assembly.MIRROR, [Reply(tags=["UPDATE 1"]), Reply(tags=["UPDATE 0"])])
    assert caught.value.sqlstate == "XX001"
    same = [Reply(description=pg.row_description_text(["a"])) for _ in range(2)]
    check_descriptions(same)
    with pytest.raises(SqlError, match="different columns"):
        check_descriptions([*same, Reply(description=pg.row_description_text(["b"]))])
