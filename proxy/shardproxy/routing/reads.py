"""Where a SELECT belongs."""

from __future__ import annotations

from shardproxy.errors import Refused
from shardproxy.routing.conditions import cast_type
from shardproxy.routing.functions import volatility
from shardproxy.routing.keys import Keyed
from shardproxy.routing.levels import Levels
from shardproxy.routing.plan import All, Assembly, Home, Kind, Route, Statement
from shardproxy.routing.schema import RoutingContext
from shardproxy.routing.tree import Message, check_nodes, name_of, strings, unwrap, walk

ALL_KEYS = "name the sharding key, so that all of it is on one shard"


def select(node: Message, text: str, context: RoutingContext) -> Statement:
    """A SELECT or VALUES, whole."""
    if node.HasField("into_clause"):
        raise Refused("SELECT INTO", "use CREATE TABLE and INSERT")
    check_nodes(node)
    volatility(node, context.schema)  # refuses what could change something
    levels = Levels(context, casts_of(node))
    levels.add_query(node)
    if levels.recursive and levels.sharded:
        raise Refused("WITH RECURSIVE on a sharded table", "follow the recursion in the application, or on the shard itself")
    locks = any(name_of(part) == "LockingClause" for part in walk(node))
    route, assembly = read_route(node, levels)
    if locks and route == Home() and any(not relation.is_system for relation in levels.relations):
        raise Refused("FOR UPDATE on an omnisharded table", "lock the row of a sharded table instead")
    return Statement(
        text,
        Kind.QUERY,
        route,
        writes=locks,
        assembly=assembly,
        returns_rows=True,
        parameters=parameters_of(node),
        unknown_relations=frozenset(levels.unknown),
    )


def read_route(node: Message, levels: Levels) -> tuple[Route, Assembly]:
    """By the sharded relations and what ties them; raises Refused where one shard is needed and not known."""
    sharded = levels.sharded
    if not sharded:
        return Home(), Assembly.SINGLE
    loose = [source for source in sharded if not source.tied]
    obstacle = not_plain(node, levels)
    if not loose:
        choices = tuple(source.values or () for source in sharded)
        return Keyed(choices, may_fan_out=obstacle is None), Assembly.CONCAT if obstacle is None else Assembly.SINGLE
    if obstacle is not None:
        key = loose[0].sharding.column if loose[0].sharding is not None else ""
        raise Refused(f"{obstacle} over several shards", f"{ALL_KEYS} ({loose[0].alias}.{key})")
    return All(), Assembly.CONCAT


def not_plain(node: Message, levels: Levels) -> str | None:
    """What keeps a SELECT from being answered by putting the shards' rows one after the other; None if nothing does."""
    if node.HasField("larg"):
        return "a set operation"
    clauses = {
        "WITH": node.HasField("with_clause"),
        "DISTINCT": bool(node.distinct_clause),
        "GROUP BY": bool(node.group_clause),
        "HAVING": node.HasField("having_clause"),
        "a WINDOW clause": bool(node.window_clause),
        "ORDER BY": bool(node.sort_clause),
        "LIMIT": node.HasField("limit_count"),
        "OFFSET": node.HasField("limit_offset"),
        "FOR UPDATE": bool(node.locking_clause),
        "a subquery": len(levels.levels) > 1,
        "a join": levels.levels[0].joins > 0 or len(levels.levels[0].sources) + levels.levels[0].others > 1,
    }
    return next((clause for clause, present in clauses.items() if present), _combining(node, levels.context))


def _combining(node: Message, context: RoutingContext) -> str | None:
    """A function that combines rows: an aggregate, a window function, a set."""
    for part in walk(node):
        if name_of(part) == "FuncCall":
            name = strings(part.funcname)[-1]
            function = context.schema.functions.get(name)
            if part.HasField("over") or part.agg_star or part.agg_distinct or function is None or function.combines_rows:
                return f"{name}()"
        elif name_of(part) in ("GroupingFunc", "GroupingSet"):
            return "GROUPING"
    return None


def casts_of(node: Message) -> dict[int, set[str]]:
    """The types to which each parameter is cast."""
    casts: dict[int, set[str]] = {}
    for part in walk(node):
        if name_of(part) == "TypeCast":
            inner = unwrap(part.arg)
            if name_of(inner) == "ParamRef":
                casts.setdefault(inner.number, set()).add(cast_type(part))
    return casts


def parameters_of(node: Message) -> int:
    """The highest $n."""
    return max((part.number for part in walk(node) if name_of(part) == "ParamRef"), default=0)
