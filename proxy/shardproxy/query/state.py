"""What one client session owns: its login, its transaction, its settings, its server connections.

Invariant: a session setting lives only on connections that belong to this session alone; they are closed with it, never shared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from shardproxy.backend.cluster import Cluster
from shardproxy.backend.connection import Credentials, ServerConnection
from shardproxy.errors import SqlError
from shardproxy.metrics import Metrics
from shardproxy.query.commit import CommitTimeouts, Link
from shardproxy.query.relay import Sink
from shardproxy.query.transaction import Transaction

CANCEL_TIMEOUT = 5.0


@dataclass(frozen=True)
class User:
    """An application user as configured."""

    name: str
    credentials: Credentials
    pool_size: int | None = None
    two_phase_commit: bool = True
    two_phase_commit_auto: bool = True


@dataclass
class SessionState:
    """The parts of a session that its executors share."""

    user: User
    cluster: Cluster
    sink: Sink
    metrics: Metrics
    timeouts: CommitTimeouts
    background: set[asyncio.Task[None]]
    """Commits that go on when their client has been answered or is gone; owned by the server."""
    home: int = 0
    startup: Mapping[str, str] = field(default_factory=dict)
    """Startup settings: part of the pool's key."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """What the client was told at its login."""
    transaction: Transaction | None = None
    settings: dict[str, str] = field(default_factory=dict)
    """SET statements by the name that they set; non-empty = the session has connections of its own."""
    sticky: bool = False
    """A setting is about to be made: connections taken from now on belong to this session."""
    own: dict[int, ServerConnection] = field(default_factory=dict)
    """Connections that belong to this session, by position."""
    using: set[ServerConnection] = field(default_factory=set)
    """Connections with a request outside a transaction."""
    pending: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    """By position: this session's own commit that has not finished there yet."""
    schema_changed: Callable[[], None] = lambda: None
    """Called when DDL was committed."""
    committing: bool = False
    deadlock_victim: bool = False

    @property
    def status(self) -> str:
        """As ReadyForQuery says it."""
        return self.transaction.status if self.transaction is not None and self.transaction.explicit else "I"

    def home_now(self) -> int:
        """Where a statement goes that any one shard can answer: in a transaction, a shard that takes part already."""
        joined = self.transaction.joined if self.transaction is not None else {}
        return self.home if self.home in joined or not joined else next(iter(joined))

    async def acquire(self, position: int) -> Link:
        """A connection to the shard with this session's settings."""
        await self._own_commit(position)
        own = self.own.get(position)
        if own is not None:
            if own.usable and own.busy_since is None:
                return Link(own, None, settled=False)
            self._drop(position)
        pool = self.cluster.pool(self.user.credentials, position, self.user.pool_size)
        connection = await pool.acquire(self.startup)
        if not (self.settings or self.sticky):
            return Link(connection, pool)
        self.adopt(position, Link(connection, pool))
        for text in self.settings.values():
            result = await connection.query(text, self.timeouts.prepare)
            if result.error is not None:
                self._drop(position)
                raise result.error
        return Link(connection, None, settled=False)

    async def _own_commit(self, position: int) -> None:
        """A session reads its own writes: it waits for its own commit before it uses such a shard again."""
        task = self.pending.get(position)
        if task is None:
            return
        await asyncio.wait({task}, timeout=self.timeouts.resolution)
        if not task.done():
            number = self.cluster.shards[position].address.number
            raise SqlError(
                "55000", f"an earlier transaction of this session has not finished on shard {number} yet", hint="try again"
            )
        del self.pending[position]

    def adopt(self, position: int, link: Link) -> None:
        """Make a pool's connection this session's own; it still counts against the pool's size until it is closed."""
        self.own[position] = link.connection

    def release(self, position: int, link: Link) -> None:
        """Give a connection back to whom it belongs."""
        if self.own.get(position) is link.connection:
            if not link.connection.usable:
                self._drop(position)
        elif link.pool is not None:
            link.pool.release(link.connection)

    def _drop(self, position: int) -> None:
        connection = self.own.pop(position)
        self.cluster.pool(self.user.credentials, position, self.user.pool_size).discard(connection)

    def drop_own(self) -> None:
        """Close this session's own connections, and its settings with them."""
        self.settings.clear()
        self.sticky = False
        for position in tuple(self.own):
            self._drop(position)

    def remember(self, setting: str, text: str) -> None:
        """A session setting was committed; RESET ALL has no name."""
        if setting:
            self.settings[setting] = text
        else:
            self.reset_all()

    def reset_all(self) -> None:
        """RESET ALL: back to connections from the pool."""
        self.drop_own()
        for name, value in self.parameters.items():
            self.sink.tell(name, value)

    def tell_of(self, connection: ServerConnection) -> None:
        """Tell the client what the end of a transaction has set back."""
        for name in tuple(self.sink.told):
            value = connection.parameters.get(name, "")
            if name in self.startup and value == self.startup[name]:
                value = self.parameters[name]
            if value and name not in ("is_superuser", "client_encoding"):
                self.sink.tell(name, value)

    def explained(self, error: SqlError) -> SqlError:
        """A cancel that came from the deadlock guard is a deadlock for the client."""
        if not self.deadlock_victim or error.sqlstate != "57014":
            return error
        self.deadlock_victim = False
        return SqlError(
            "40P01",
            "deadlock detected",
            detail="transactions over several shards wait for each other; this one was the youngest",
            hint="try the transaction again",
        )

    def connections(self) -> list[ServerConnection]:
        """Every connection that may owe this session an answer."""
        joined = self.transaction.joined.values() if self.transaction is not None else ()
        return [*self.using, *(part.link.connection for part in joined), *self.own.values()]

    async def cancel(self) -> None:
        """Cancel what runs for this session; never during the commit protocol, where it could turn a commit into an error."""
        if self.committing:
            return
        busy = {connection: connection.busy_since for connection in self.connections() if connection.busy_since is not None}
        await asyncio.gather(*(connection.cancel(since, CANCEL_TIMEOUT) for connection, since in busy.items()))
