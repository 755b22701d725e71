"""Routing without a shard: what `pgshepherd route` says.  Tables are described by the caller; functions are taken as known."""

from __future__ import annotations

import re
from collections.abc import Sequence

import postgast

from shardproxy.errors import SqlError
from shardproxy.routing.analyze import analyze
from shardproxy.routing.keys import Keyed
from shardproxy.routing.plan import All, Statement
from shardproxy.routing.schema import Column, Function, Relation, RoutingContext, Schema, ShardedTable
from shardproxy.routing.tree import name_of, strings, walk

_TABLE = re.compile(r"\s*([a-z_][a-z0-9_]*)\s*\(([^()]*)\)\s*", re.ASCII)
_OIDS = {"bigint": 20, "int8": 20, "integer": 23, "int": 23, "smallint": 21, "text": 25, "varchar": 1043, "uuid": 2950}
_AGGREGATES = frozenset({"count", "sum", "avg", "min", "max", "array_agg", "string_agg", "row_number", "rank"})


def explain(sql: str, *, shards: int, column: str, data_type: str, tables: Sequence[str]) -> list[str]:
    """One line for each statement; raises SqlError where it would be refused."""
    relations = {("public", relation.name): relation for relation in map(_relation, tables)}
    schema = Schema(
        relations, {name: Function("i", only_system=True, combines_rows=name in _AGGREGATES) for name in _called(sql)}
    )
    context = RoutingContext(shards, (ShardedTable(column, data_type),), schema)
    return [_line(statement, shards) for statement in analyze(sql, context)]


def _relation(text: str) -> Relation:
    match = _TABLE.fullmatch(text.lower())
    if match is None:
        raise SqlError("42601", f"{text!r} does not describe a table: write name(column type, ...)")
    columns = [part.split() for part in match[2].split(",") if part.strip()]
    return Relation(
        "public", match[1], "r", tuple(Column(one[0], _OIDS.get(one[1] if len(one) > 1 else "", 0)) for one in columns)
    )


def _called(sql: str) -> frozenset[str]:
    try:
        tree = postgast.parse(sql)
    except postgast.PgQueryError:
        return frozenset()
    return frozenset(strings(node.funcname)[-1] for node in walk(tree) if name_of(node) == "FuncCall")


def _line(statement: Statement, shards: int) -> str:
    if statement.unknown_relations:
        names = ", ".join(sorted(statement.unknown_relations))
        raise SqlError("42P01", f"the tables {names} are not described", hint='say --table "name(column type, ...)"')
    route = statement.route
    if isinstance(route, All):
        where = f"all {shards} shards"
    elif isinstance(route, Keyed) and all(value.parameter == 0 for values in route.choices for value in values):
        where = f"shard {', '.join(str(one) for one in sorted(route.shards((), count=shards, home=0)))}"
    elif isinstance(route, Keyed):
        where = "the shard of its key, known when the parameters are bound"
    else:
        where = "one shard, the same one for the session"
    return f"{statement.kind.value}{', writes' if statement.writes else ''}: {where}; answer: {statement.assembly.value}"
