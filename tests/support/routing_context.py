"""A schema for routing tests: what the analyzer would know of a shop."""

from __future__ import annotations

from shardproxy.routing.schema import Column, Function, Relation, RoutingContext, Schema, ShardedTable

BIGINT, INT, TEXT, VARCHAR, UUID, TIMESTAMPTZ = 20, 23, 25, 1043, 2950, 1184


def _table(
    name: str, *columns: tuple[str, int], kind: str = "r", triggers: bool = False, defaults: frozenset[str] = frozenset()
) -> Relation:
    return Relation("public", name, kind, tuple(Column(column, oid, column in defaults) for column, oid in columns), triggers)


_RELATIONS = [
    _table("accounts", ("customer_id", BIGINT), ("balance", INT), ("name", TEXT)),
    _table("orders", ("id", BIGINT), ("customer_id", BIGINT), ("total", INT), defaults=frozenset({"id"})),
    _table("words", ("word", VARCHAR), ("n", INT)),
    _table("things", ("thing", UUID), ("n", INT)),
    _table("rates", ("name", TEXT), ("rate", INT)),
    _table("events", ("id", BIGINT), ("at", TIMESTAMPTZ), defaults=frozenset({"id", "at"})),
    _table("audited", ("id", BIGINT), triggers=True),
    _table("wrong", ("customer_id", TEXT)),
    _table("accounts_view", ("customer_id", BIGINT), kind="v"),
]
_FUNCTIONS = {
    "count": Function("i", True, True), "sum": Function("i", True, True), "row_number": Function("i", True, True),
    "generate_series": Function("i", True, True), "lower": Function("i", True), "abs": Function("i", True), "now": Function("s", True),
    "random": Function("v", True), "nextval": Function("v", True), "pg_notify": Function("v", True), "version": Function("s", True),
    "pg_sleep": Function("v", True), "current_setting": Function("s", True), "set_config": Function("v", True),
    "mine": Function("i", False), "pg_advisory_lock": Function("v", True), "pg_advisory_unlock_all": Function("v", True),
}  # fmt: skip

CONTEXT = RoutingContext(
    shards=4,
    sharded_tables=(
        ShardedTable("customer_id", "bigint"),
        ShardedTable("word", "varchar", name="words"),
        ShardedTable("thing", "uuid"),
    ),
    schema=Schema(
        {(relation.schema, relation.name): relation for relation in _RELATIONS},
        _FUNCTIONS,
        ("pg_catalog", "public"),
        frozenset({"pg_class", "pg_namespace", "pg_attribute", "pg_type", "pg_roles"}),
    ),
)
