"""Prepared statements and portals of one client, and their names on the servers.

Invariant: a named statement has one name on every server, the same for all clients that prepare the same text with the same types,
so that any pooled connection can run it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from shardproxy.backend.connection import ServerConnection
from shardproxy.errors import SqlError
from shardproxy.protocol import messages as pg
from shardproxy.query.relay import Expect
from shardproxy.routing.plan import Statement

STATEMENTS_PER_CONNECTION = 500
"""Prepared statements kept on one server connection; the least recently used is closed."""

_names: dict[tuple[str, tuple[int, ...]], str] = {}
_numbers = itertools.count(1)
_MAX_NAMES = 65536


def server_name(sql: str, oids: tuple[int, ...]) -> str:
    """The name of this text on every server."""
    key = (sql, oids)
    name = _names.get(key)
    if name is None:
        if len(_names) >= _MAX_NAMES:
            del _names[next(iter(_names))]
        name = _names[key] = f"__pgshepherd_{next(_numbers)}"
    return name


@dataclass
class Prepared:
    """What a client's Parse made."""

    name: str
    sql: str
    oids: tuple[int, ...]
    statement: Statement
    on_server: str = ""
    """Empty: the unnamed statement."""


@dataclass
class Portal:
    """What a client's Bind made."""

    prepared: Prepared
    bind: pg.Bind
    positions: frozenset[int] = frozenset()


@dataclass
class ClientObjects:
    """Everything that a client has named."""

    statements: dict[str, Prepared] = field(default_factory=dict)
    portals: dict[str, Portal] = field(default_factory=dict)
    _new: set[str] = field(default_factory=set)
    """Statements of this batch."""
    _doubtful: set[str] = field(default_factory=set)
    """Statements of a batch that failed: before their Parse or after it, only the client knows."""

    def add(self, prepared: Prepared) -> None:
        """What a Parse made."""
        self.statements[prepared.name] = prepared
        self._new.add(prepared.name)
        self._doubtful.discard(prepared.name)

    def is_taken(self, name: str) -> bool:
        """Whether a Parse of this name is an error."""
        return name in self.statements and name not in self._doubtful

    def doubt(self) -> None:
        """The batch failed."""
        self._doubtful |= self._new

    def settle(self) -> None:
        """The end of a batch."""
        self._new.clear()

    def statement(self, name: str) -> Prepared:
        """Raises 26000."""
        if name not in self.statements:
            raise SqlError(
                "26000", f'prepared statement "{name}" does not exist' if name else "unnamed prepared statement does not exist"
            )
        return self.statements[name]

    def portal(self, name: str) -> Portal:
        """Raises 34000."""
        if name not in self.portals:
            raise SqlError("34000", f'portal "{name}" does not exist')
        return self.portals[name]


def ensure(connection: ServerConnection, prepared: Prepared) -> tuple[bytes, list[Expect]]:
    """Frames that make the statement known to the server, and what they bring; nothing where it is known already."""
    if not prepared.on_server:
        if connection.unnamed is prepared:
            return b"", []
        connection.unnamed = None
        return pg.parse("", prepared.sql, prepared.oids), [_swallow(lambda: setattr(connection, "unnamed", prepared))]
    name = prepared.on_server
    if name in connection.statements:
        del connection.statements[name]
        connection.statements[name] = None
        return b"", []
    frames, expects = b"", []
    if len(connection.statements) >= STATEMENTS_PER_CONNECTION:
        oldest = next(iter(connection.statements))
        del connection.statements[oldest]
        frames = pg.close("S", oldest)
        expects.append(Expect(frozenset({pg.CLOSE_COMPLETE}), forward=False))
    expects.append(_swallow(lambda: connection.statements.__setitem__(name, None)))
    return frames + pg.parse(name, prepared.sql, prepared.oids), expects


def _swallow(then: object) -> Expect:
    assert callable(then)
    return Expect(frozenset({pg.PARSE_COMPLETE}), forward=False, then=then)
