"""What the analyzer must know of the tables and functions on the shards; read from one of them, the same on all.

Invariant: a name is resolved as Postgres resolves it for this user: pg_catalog first, then the schemas of its search_path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SCHEMA_QUERIES: tuple[str, ...] = (
    "SELECT s FROM pg_catalog.unnest(pg_catalog.current_schemas(true)) s",
    """SELECT n.nspname, c.relname, c.relkind, a.attname, a.atttypid,
       a.attidentity <> '' OR (a.attgenerated = '' AND COALESCE(pg_catalog.pg_get_expr(d.adbin, d.adrelid), '')
         ~ '[(]|CURRENT_|LOCALTIME|SESSION_USER|USER'),
       EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname !~ '^pg_(toast|temp)'
ORDER BY 1, 2, a.attnum""",
    """SELECT c.relname FROM pg_catalog.pg_class c
WHERE c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace AND c.relkind IN ('r', 'v')""",
    """SELECT p.proname, pg_catalog.max(CASE p.provolatile WHEN 'v' THEN 'v' WHEN 's' THEN 's' ELSE 'i' END),
       pg_catalog.bool_and(p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace),
       pg_catalog.bool_or(p.prokind IN ('a', 'w') OR p.proretset)
FROM pg_catalog.pg_proc p GROUP BY 1""",
)
"""To be run in this order on one connection of the user, each as a simple query."""

SYSTEM_SCHEMAS = frozenset({"pg_catalog", "information_schema"})
OWN_SCHEMA = "pgshepherd"


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    type_oid: int
    unsafe_default: bool = False
    """What Postgres puts there by itself may differ from shard to shard: identity, serial, now() ..."""


@dataclass(frozen=True)
class Relation:
    """A table, or something that looks like one."""

    schema: str
    name: str
    kind: str
    """pg_class.relkind; r and p are tables."""
    columns: tuple[Column, ...] = ()
    has_triggers: bool = False

    def column(self, name: str) -> Column | None:
        """The column of that name."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def is_system(self) -> bool:
        """Part of the catalogs: the same on every shard."""
        return self.schema in SYSTEM_SCHEMAS


@dataclass(frozen=True)
class Function:
    """All functions of one name."""

    volatility: str
    """The worst of them: i, s or v."""
    only_system: bool
    combines_rows: bool = False
    """An aggregate, a window function, or one that returns a set."""


@dataclass(frozen=True)
class Schema:
    """Everything that one connection sees."""

    relations: Mapping[tuple[str, str], Relation] = field(default_factory=dict)
    functions: Mapping[str, Function] = field(default_factory=dict)
    search_path: tuple[str, ...] = ("pg_catalog", "public")
    system_relations: frozenset[str] = frozenset()

    @classmethod
    def from_results(cls, results: Sequence[Sequence[tuple[str | None, ...]]]) -> Schema:
        """From the rows that SCHEMA_QUERIES gave."""
        path, columns, system, functions = results
        relations: dict[tuple[str, str], Relation] = {}
        for namespace, name, kind, column, type_oid, unsafe, triggers in columns:
            key = (namespace or "", name or "")
            known = relations.get(key) or Relation(*key, kind=kind or "r", has_triggers=triggers == "t")
            own = (Column(column, int(type_oid or 0), unsafe == "t"),) if column is not None else ()
            relations[key] = Relation(*key, kind=known.kind, columns=known.columns + own, has_triggers=known.has_triggers)
        return cls(
            relations=relations,
            functions={
                name or "": Function(worst or "v", only == "t", combines == "t") for name, worst, only, combines in functions
            },
            search_path=tuple(row[0] or "" for row in path),
            system_relations=frozenset(row[0] or "" for row in system),
        )

    def find(self, schema: str, name: str) -> Relation | None:
        """As Postgres would resolve it; `schema` is empty for an unqualified name; None if there is none."""
        if schema in SYSTEM_SCHEMAS:
            return Relation(schema, name, "r")
        if schema:
            return self.relations.get((schema, name))
        for namespace in self.search_path:
            if namespace == "pg_catalog" and name in self.system_relations:
                return Relation("pg_catalog", name, "r")
            if (namespace, name) in self.relations:
                return self.relations[(namespace, name)]
        return None


@dataclass(frozen=True)
class ShardedTable:
    """An entry of [[sharded_tables]]; without a name it means every table that has the column."""

    column: str
    data_type: str
    name: str | None = None
    schema: str | None = None


_KEY_TYPES: Mapping[str, frozenset[int]] = {
    "bigint": frozenset({20, 21, 23}),
    "varchar": frozenset({25, 1043}),
    "uuid": frozenset({2950}),
}
"""OIDs of the column types for each data type of a key."""


@dataclass(frozen=True)
class RoutingContext:
    """Everything that routing depends on."""

    shards: int
    sharded_tables: tuple[ShardedTable, ...] = ()
    schema: Schema = field(default_factory=Schema)

    def sharding(self, relation: Relation) -> ShardedTable | None:
        """How this table is sharded; None if it is omnisharded.  An entry with a name wins over one without."""
        if relation.is_system or relation.schema == OWN_SCHEMA:
            return None
        matching = [entry for entry in self.sharded_tables if _matches(entry, relation)]
        named = [entry for entry in matching if entry.name is not None]
        return next(iter(named or matching), None)

    def key_type_fits(self, relation: Relation, entry: ShardedTable) -> bool:
        """Whether the key's column has a type that hashes as the entry says."""
        column = relation.column(entry.column)
        return column is not None and column.type_oid in _KEY_TYPES[entry.data_type]


def _matches(entry: ShardedTable, relation: Relation) -> bool:
    if entry.schema is not None and entry.schema != relation.schema:
        return False
    if entry.name is not None:
        return entry.name == relation.name
    return relation.column(entry.column) is not None
