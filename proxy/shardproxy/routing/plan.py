"""What the analyzer says of a statement: frozen values that sessions act on.

Invariant: a `Statement` exists only for text that is known to be answered right by its route and assembly; everything else was
refused before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


class Kind(Enum):
    """What a session has to do with a statement."""

    QUERY = "query"
    DML = "dml"
    DDL = "ddl"
    BEGIN = "begin"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    SAVEPOINT = "savepoint"
    RELEASE = "release"
    ROLLBACK_TO = "rollback to"
    SET = "set"
    RESET = "reset"
    RESET_ALL = "reset all"
    SHOW = "show"
    SET_TRANSACTION = "set transaction"
    DISCARD_ALL = "discard all"
    DEALLOCATE = "deallocate"
    CLOSE_ALL = "close all"
    UNLISTEN_ALL = "unlisten all"
    EMPTY = "empty"


class Assembly(Enum):
    """How the shards' answers become one."""

    SINGLE = "the one shard's answer"
    CONCAT = "rows concatenated, counts summed"
    MIRROR = "every shard does the same: counts must agree, one answer is given"


@dataclass(frozen=True)
class Param:
    """One parameter of a Bind."""

    value: bytes | None
    binary: bool = False
    oid: int = 0
    """As declared in Parse; 0 = left to the server."""


class Route(Protocol):
    """Where a statement goes."""

    def shards(self, parameters: Sequence[Param], *, count: int, home: int) -> frozenset[int]:
        """Positions of the shards; raises Refused where the parameters lead to something that can't be answered exactly."""
        ...


@dataclass(frozen=True)
class Home:
    """One shard, the same one for the session."""

    def shards(self, parameters: Sequence[Param], *, count: int, home: int) -> frozenset[int]:
        """The session's home."""
        return frozenset({home})


@dataclass(frozen=True)
class All:
    """Every shard."""

    def shards(self, parameters: Sequence[Param], *, count: int, home: int) -> frozenset[int]:
        """All positions."""
        return frozenset(range(count))


@dataclass(frozen=True)
class Statement:
    """One statement of a text, ready to run."""

    text: str
    """Exactly this statement, without its semicolon, as servers get it."""
    kind: Kind
    route: Route = field(default_factory=Home)
    writes: bool = False
    """False only if it surely can't write and takes no row locks."""
    assembly: Assembly = Assembly.SINGLE
    returns_rows: bool = False
    name: str = ""
    """Of a savepoint, a setting or a prepared statement, lower case as Postgres folds it; of BEGIN its tag."""
    is_local: bool = False
    """SET LOCAL."""
    isolation: str | None = None
    """Asked for by BEGIN or SET TRANSACTION: 'repeatable read', 'serializable', ...; None = the default."""
    rewritten: bool = False
    """Whether `text` is not quite the client's."""
    parameters: int = 0
    """The highest $n."""
    unknown_relations: frozenset[str] = frozenset()
    """Not in the schema that is known: read the schema again once; if still unknown, Postgres says so itself."""
