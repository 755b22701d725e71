"""The query levels of a statement: for each SELECT in it, the relations that it reads and the conditions on their keys.

A relation is *tied* when its key must equal known values, by a condition of its own level.  Invariant: a condition counts only if
every row of the result fulfils it: AND-connected in WHERE, or in the ON of a join that can't produce rows without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from shardproxy.errors import Refused, SqlError
from shardproxy.routing.conditions import Equality, Operand, key_values, operands
from shardproxy.routing.keys import KeyValue
from shardproxy.routing.schema import OWN_SCHEMA, Relation, RoutingContext, ShardedTable
from shardproxy.routing.tree import Message, children, name_of, unwrap, walk


@dataclass
class Source:
    """A relation in a FROM list, by the name that the level knows it under."""

    alias: str
    relation: Relation
    sharding: ShardedTable | None
    values: tuple[KeyValue, ...] | None = None
    """Known values of its key: then it is tied."""
    tied_to: set[int] = field(default_factory=set)
    """Other sources of the level whose tie is its own too."""

    @property
    def tied(self) -> bool:
        """Whether its rows are on known shards."""
        return self.values is not None


@dataclass
class Level:
    """One SELECT, UPDATE or DELETE with its FROM list."""

    sources: list[Source] = field(default_factory=list)
    joins: int = 0
    others: int = 0
    """Things in FROM that are no relations: subqueries, functions, CTEs."""


@dataclass
class Levels:
    """All levels of a statement."""

    context: RoutingContext
    casts: dict[int, set[str]]
    """Types to which each parameter is cast anywhere in the statement."""
    levels: list[Level] = field(default_factory=list)
    recursive: bool = False
    """There is a WITH RECURSIVE."""
    unknown: set[str] = field(default_factory=set)

    @property
    def sharded(self) -> list[Source]:
        """All sharded relations, of every level."""
        return [source for level in self.levels for source in level.sources if source.sharding is not None]

    @property
    def relations(self) -> list[Relation]:
        """All relations that are read."""
        return [source.relation for level in self.levels for source in level.sources]

    # --- collecting

    def add_query(self, node: Message, names: frozenset[str] = frozenset()) -> None:
        """A SelectStmt with everything below it; `names` are the CTEs in scope."""
        names = self._with_clause(node, names)
        if node.HasField("larg"):
            self.add_query(node.larg, names)
            self.add_query(node.rarg, names)
            self.add_expressions([*node.sort_clause, node.limit_count, node.limit_offset], names)
            return
        level = Level()
        self.levels.append(level)
        self._from(level, node.from_clause, names)
        self._conditions(level, node.from_clause, node.where_clause)
        rest = [
            *node.target_list,
            node.where_clause,
            *node.group_clause,
            node.having_clause,
            *node.window_clause,
            *node.sort_clause,
        ]
        self.add_expressions([*rest, node.limit_count, node.limit_offset, *node.distinct_clause, *node.values_lists], names)
        self.add_expressions(list(_join_conditions(node.from_clause)), names)

    def add_target(self, node: Message, extra: Message, where: Message, names: frozenset[str]) -> Level:
        """UPDATE's or DELETE's own table with its FROM or USING list."""
        level = Level()
        self.levels.append(level)
        self._relation(level, node, names)
        self._from(level, extra, names)
        self._conditions(level, extra, where)
        self.add_expressions([where, *_join_conditions(extra)], names)
        return level

    def _with_clause(self, node: Message, names: frozenset[str]) -> frozenset[str]:
        if not node.HasField("with_clause"):
            return names
        ctes = [unwrap(cte) for cte in node.with_clause.ctes]
        if node.with_clause.recursive:
            self.recursive = True
            names = names | {cte.ctename for cte in ctes}
        for cte in ctes:
            query = unwrap(cte.ctequery)
            if name_of(query) != "SelectStmt":
                raise Refused("a WITH query that writes", "send it as a statement of its own in the same transaction")
            self.add_query(query, names)
            names = names | {cte.ctename}
        return names

    def with_clause(self, node: Message) -> frozenset[str]:
        """The CTEs of an INSERT, UPDATE or DELETE."""
        return self._with_clause(node, frozenset())

    def add_expressions(self, nodes: list[Message], names: frozenset[str]) -> None:
        """Subqueries anywhere in these expressions are levels of their own."""
        for node in nodes:
            self._expression(unwrap(node), names)

    def _expression(self, node: Message, names: frozenset[str]) -> None:
        if name_of(node) == "SelectStmt":
            self.add_query(node, names)
            return
        for child in children(node):
            self._expression(child, names)

    # --- the FROM list

    def _from(self, level: Level, nodes: Message, names: frozenset[str]) -> None:
        for node in nodes:
            self._item(level, unwrap(node), names)

    def _item(self, level: Level, node: Message, names: frozenset[str]) -> None:
        match name_of(node):
            case "RangeVar":
                self._relation(level, node, names)
            case "JoinExpr":
                if node.is_natural or node.using_clause:
                    raise Refused("NATURAL JOIN and JOIN USING", "write JOIN ... ON")
                level.joins += 1
                self._item(level, unwrap(node.larg), names)
                self._item(level, unwrap(node.rarg), names)
            case "RangeSubselect":
                level.others += 1
                self.add_query(unwrap(node.subquery), names)
            case "RangeFunction":
                level.others += 1
                self._expression(node, names)
            case kind:
                raise Refused(f"{kind} in FROM", "name tables, joins and subqueries only")

    def _relation(self, level: Level, node: Message, names: frozenset[str]) -> None:
        if not node.schemaname and node.relname in names:
            level.others += 1
            return
        relation = self.find(node)
        if relation is None:
            return
        alias = node.alias.aliasname if node.HasField("alias") else node.relname
        if node.HasField("alias") and node.alias.colnames:
            raise Refused("renaming the columns of a table in FROM", "use the columns' own names")
        level.sources.append(Source(alias, relation, self.context.sharding(relation)))

    def find(self, node: Message) -> Relation | None:
        """The relation of a RangeVar; notes it if it is unknown, refuses what is no table."""
        if node.catalogname:
            raise SqlError("0A000", "cross-database references are not implemented")
        relation = self.context.schema.find(node.schemaname, node.relname)
        if node.schemaname == OWN_SCHEMA or (relation is not None and relation.schema == OWN_SCHEMA):
            raise Refused(
                "access to the schema pgshepherd", "its tables belong to the commit protocol: use pgshepherd transactions"
            )
        if relation is None:
            self.unknown.add(f"{node.schemaname}.{node.relname}" if node.schemaname else node.relname)
            return None
        if relation.kind not in ("r", "p"):
            raise Refused(f"{relation.name}, which is no table", "name the tables themselves, or ask the shard itself")
        entry = self.context.sharding(relation)
        if entry is not None and not self.context.key_type_fits(relation, entry):
            raise Refused(
                f"the table {relation.name}, whose key column {entry.column} is not a {entry.data_type}",
                "give the column the type that [[sharded_tables]] says, or mend the entry",
            )
        return relation

    # --- conditions

    def _conditions(self, level: Level, from_clause: Message, where: Message) -> None:
        for condition in operands(where):
            self._condition(level, condition, level.sources)
        for join in (unwrap(node) for node in from_clause):
            self._join(level, join)
        self._spread(level)

    def _join(self, level: Level, node: Message) -> None:
        """ON conditions: an inner join's hold for both sides, an outer join's only for the side that may be missing."""
        if name_of(node) != "JoinExpr":
            return
        left, right = unwrap(node.larg), unwrap(node.rarg)
        sides = {1: [left, right], 2: [right], 4: [left]}.get(node.jointype, [])
        bound = [source for side in sides for source in self._within(level, side)]
        for condition in operands(node.quals):
            self._condition(level, condition, bound)
        self._join(level, left)
        self._join(level, right)

    def _within(self, level: Level, node: Message) -> list[Source]:
        aliases = {
            part.alias.aliasname if part.HasField("alias") else part.relname for part in walk(node) if name_of(part) == "RangeVar"
        }
        return [source for source in level.sources if source.alias in aliases]

    def _condition(self, level: Level, condition: Equality, bound: list[Source]) -> None:
        column = self._source(level, condition.column)
        if column is None or column not in bound:
            other = self._other(level, condition)
            if column is not None and other is not None and other in bound:
                other.tied_to.add(level.sources.index(column))
            return
        if condition.other is not None:
            other = self._other(level, condition)
            if other is not None:
                column.tied_to.add(level.sources.index(other))
                if other in bound:
                    other.tied_to.add(level.sources.index(column))
            return
        assert column.sharding is not None
        values = key_values(column.sharding.data_type, condition.values, self.casts)
        if values is not None and column.values is None:
            column.values = values

    def _other(self, level: Level, condition: Equality) -> Source | None:
        return self._source(level, condition.other) if condition.other is not None else None

    def _source(self, level: Level, operand: Operand) -> Source | None:
        """The sharded source whose key this column is."""
        found = [
            source
            for source in level.sources
            if (operand.qualifier == source.alias if operand.qualifier else source.relation.column(operand.column) is not None)
        ]
        if len(found) != 1 or (not operand.qualifier and level.others):
            return None
        sharding = found[0].sharding
        return found[0] if sharding is not None and sharding.column == operand.column else None

    def _spread(self, level: Level) -> None:
        """Equality of two keys of one type passes a tie on."""
        changed = True
        while changed:
            changed = False
            for source in level.sources:
                for other in (level.sources[index] for index in source.tied_to):
                    same = source.sharding is not None and other.sharding is not None
                    if same and source.values is None and other.values is not None:
                        changed = source.sharding.data_type == other.sharding.data_type  # type: ignore[union-attr]
                        source.values = other.values if changed else None


def _join_conditions(nodes: Message) -> Iterator[Message]:
    for node in nodes:
        yield from (unwrap(part.quals) for part in walk(unwrap(node)) if name_of(part) == "JoinExpr")
