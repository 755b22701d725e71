"""Where INSERT, UPDATE and DELETE belong.

Invariant: a row of a sharded table is only ever put on the shard of its key, and an omnisharded table gets the very same on every
shard, or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardproxy.errors import Refused
from shardproxy.routing.conditions import key_value
from shardproxy.routing.functions import volatility
from shardproxy.routing.keys import Keyed, KeyValue
from shardproxy.routing.levels import Level, Levels
from shardproxy.routing.plan import All, Assembly, Home, Kind, Route, Statement
from shardproxy.routing.reads import ALL_KEYS, casts_of, parameters_of
from shardproxy.routing.schema import Relation, RoutingContext, ShardedTable
from shardproxy.routing.tree import Message, check_nodes, name_of, unwrap, walk

_IN_APPLICATION = "compute the value in the application and send it as a literal or parameter"


@dataclass(frozen=True)
class _Write:
    node: Message
    text: str
    context: RoutingContext
    levels: Levels
    worst: str
    """Volatility."""

    def statement(self, route: Route, assembly: Assembly) -> Statement:
        if self.levels.recursive:
            raise Refused("WITH RECURSIVE in a write", "read first, then write what was read")
        return Statement(
            self.text,
            Kind.DML,
            route,
            writes=True,
            assembly=assembly,
            returns_rows=bool(self.node.returning_list) if "returning_list" in _fields(self.node) else _returns(self.node),
            parameters=parameters_of(self.node),
            unknown_relations=frozenset(self.levels.unknown),
        )

    def target(self) -> tuple[Relation | None, ShardedTable | None]:
        relation = self.levels.find(self.node.relation)
        if relation is not None and relation.is_system:
            raise Refused("a write to a system catalog", "use DDL on the shard itself")
        return relation, self.context.sharding(relation) if relation is not None else None

    def mirror(self, relation: Relation) -> Statement:
        """The same on every shard: nothing in it may depend on the shard."""
        if self.worst != "i":
            raise Refused(
                f"a function whose result may differ between shards, in a write to the omnisharded table {relation.name}",
                _IN_APPLICATION,
            )
        if relation.has_triggers:
            raise Refused(
                f"a write to the omnisharded table {relation.name}, which has triggers",
                "what a trigger does may differ between shards: write to each shard by itself",
            )
        if self.levels.sharded:
            raise Refused("a sharded table in a write to an omnisharded one", "read first, then write what was read")
        return self.statement(All(), Assembly.MIRROR)


def _fields(node: Message) -> frozenset[str]:
    return frozenset(descriptor.name for descriptor in node.DESCRIPTOR.fields)


def _returns(node: Message) -> bool:
    return bool(node.HasField("returning_clause")) if "returning_clause" in _fields(node) else False


def _prepare(node: Message, text: str, context: RoutingContext) -> _Write:
    check_nodes(node)
    return _Write(node, text, context, Levels(context, casts_of(node)), volatility(node, context.schema))


# --- INSERT


def insert(node: Message, text: str, context: RoutingContext) -> Statement:
    """INSERT INTO table (columns) VALUES rows."""
    write = _prepare(node, text, context)
    names = write.levels.with_clause(node)
    relation, sharding = write.target()
    if relation is None:
        return write.statement(Home(), Assembly.SINGLE)
    query = unwrap(node.select_stmt)
    if name_of(query) != "SelectStmt":
        rows: list[list[Message]] = [[]]
    elif query.values_lists:
        rows = [[unwrap(item) for item in unwrap(row).items] for row in query.values_lists]
        write.levels.add_expressions([item for row in rows for item in row], names)
    else:
        write.levels.add_query(query, names)
        return _insert_select(write, relation, sharding)
    columns = [unwrap(column).name for column in node.cols] or [column.name for column in relation.columns]
    _check_conflict(node, sharding)
    if sharding is None:
        _check_defaults(relation, columns, rows)
        return write.mirror(relation)
    if write.levels.sharded:
        raise Refused("a subquery on a sharded table in INSERT", "read first, then write what was read")
    return write.statement(Keyed(_row_keys(write, sharding, columns, rows), null_allowed=False), Assembly.SINGLE)


def _insert_select(write: _Write, relation: Relation, sharding: ShardedTable | None) -> Statement:
    if sharding is not None or any(not source.is_system for source in write.levels.relations):
        raise Refused("INSERT ... SELECT", "read first, then insert what was read")
    columns = [unwrap(column).name for column in write.node.cols] or [column.name for column in relation.columns]
    _check_defaults(relation, columns, [])
    if write.levels.relations:
        raise Refused("INSERT ... SELECT from a system catalog", "read first, then insert what was read")
    return write.mirror(relation)


def _row_keys(
    write: _Write, sharding: ShardedTable, columns: list[str], rows: list[list[Message]]
) -> tuple[tuple[KeyValue, ...], ...]:
    if sharding.column not in columns:
        raise Refused(f"an INSERT without the sharding key {sharding.column}", "name the column and give every row its key")
    at = columns.index(sharding.column)
    keys = []
    for row in rows:
        value = key_value(sharding.data_type, row[at], write.levels.casts) if at < len(row) else None
        if value is None:
            raise Refused(
                f"an INSERT whose sharding key {sharding.column} is not a plain literal or parameter",
                f"give the key as a {sharding.data_type} literal or parameter",
            )
        keys.append((value,))
    return tuple(keys)


def _check_defaults(relation: Relation, columns: list[str], rows: list[list[Message]]) -> None:
    """A mirrored row must not leave a value to a default that each shard computes for itself."""
    if len(columns) < len(set(columns)) or any(len(row) < len(columns) for row in rows):
        columns = columns[: min((len(row) for row in rows), default=len(columns))]
    given = set(columns)
    for row in rows:
        given -= {name for name, item in zip(columns, row, strict=False) if name_of(item) == "SetToDefault"}
    for column in relation.columns:
        if column.unsafe_default and column.name not in given:
            raise Refused(
                f"an INSERT into the omnisharded table {relation.name} that leaves {column.name} to its default",
                f"each shard would put another value there: {_IN_APPLICATION}",
            )


def _check_conflict(node: Message, sharding: ShardedTable | None) -> None:
    if node.HasField("on_conflict_clause"):
        _check_assignments(node.on_conflict_clause.target_list, sharding)


def _check_assignments(targets: Message, sharding: ShardedTable | None) -> None:
    names = {unwrap(target).name for target in targets}
    if sharding is not None and sharding.column in names:
        raise Refused(f"an UPDATE of the sharding key {sharding.column}", "delete the row and insert it anew, in one transaction")


# --- UPDATE and DELETE


def update(node: Message, text: str, context: RoutingContext) -> Statement:
    """UPDATE table SET ... [FROM ...] WHERE ..."""
    write = _prepare(node, text, context)
    return _change(write, node.from_clause, list(node.target_list))


def delete(node: Message, text: str, context: RoutingContext) -> Statement:
    """DELETE FROM table [USING ...] WHERE ..."""
    write = _prepare(node, text, context)
    return _change(write, node.using_clause, [])


def _change(write: _Write, extra: Message, targets: list[Message]) -> Statement:
    node = write.node
    names = write.levels.with_clause(node)
    relation, sharding = write.target()
    level = write.levels.add_target(node.relation, extra, node.where_clause, names)
    write.levels.add_expressions(targets, names)
    if relation is None:
        return write.statement(Home(), Assembly.SINGLE)
    _check_assignments(targets, sharding)
    if sharding is None:
        return _change_everywhere(write, relation)
    sharded = write.levels.sharded
    loose = [source for source in sharded if not source.tied]
    plain = len(write.levels.levels) == 1 and _is_plain(level)
    if not loose:
        keyed = Keyed(tuple(source.values or () for source in sharded), may_fan_out=plain)
        return write.statement(keyed, Assembly.CONCAT if plain else Assembly.SINGLE)
    if not plain:
        raise Refused("a join or subquery in a write over several shards", f"{ALL_KEYS} ({sharding.column})")
    return write.statement(All(), Assembly.CONCAT)


def _is_plain(level: Level) -> bool:
    return len(level.sources) == 1 and level.others == 0 and level.joins == 0


def _change_everywhere(write: _Write, relation: Relation) -> Statement:
    if any(name_of(part) == "SelectStmt" and part.HasField("limit_count") for part in walk(write.node)):
        raise Refused("LIMIT in a write to an omnisharded table", "each shard may pick other rows: name the rows by their key")
    return write.mirror(relation)
