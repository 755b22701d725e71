"""Connections of one login to one shard, bounded in number, shared by sessions with the same startup settings.

Invariant: a connection is handed to one session at a time, and comes back only outside a transaction and without any
session state; anything else is closed instead.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from shardproxy.backend.connection import Credentials, ServerConnection, ShardAddress, open_connection
from shardproxy.errors import SqlError


@dataclass(frozen=True)
class PoolLimits:
    """Sizes and times of a pool; times in seconds."""

    size: int = 10
    checkout_timeout: float = 5.0
    connect_timeout: float = 5.0
    idle_timeout: float = 60.0
    lifetime: float = 86400.0


class Pool:
    """At most `limits.size` connections; waiters are served in the order in which they came."""

    def __init__(self, address: ShardAddress, credentials: Credentials, limits: PoolLimits) -> None:
        self.address = address
        self._credentials = credentials
        self._limits = limits
        self._idle: deque[ServerConnection] = deque()
        self._free = asyncio.Semaphore(limits.size)
        self._lent: set[ServerConnection] = set()

    @property
    def user(self) -> str:
        """The login role."""
        return self._credentials.user

    @property
    def open(self) -> int:
        """Connections that exist now."""
        return len(self._idle) + len(self._lent)

    async def acquire(self, settings: Mapping[str, str]) -> ServerConnection:
        """A connection opened with these startup settings; raises SqlError 53300 after `checkout_timeout`, 08001 if it can't."""
        try:
            async with asyncio.timeout(self._limits.checkout_timeout):
                await self._free.acquire()
        except TimeoutError:
            raise SqlError(
                "53300",
                f"no free connection to shard {self.address.number} within {self._limits.checkout_timeout:g} s",
                hint=f"all {self._limits.size} are in use: raise pool_size, or end idle transactions",
            ) from None
        try:
            connection = self._take(frozenset(settings.items()))
            if connection is None:
                connection = await open_connection(self.address, self._credentials, settings, self._limits.connect_timeout)
        except BaseException:
            self._free.release()
            raise
        self._lent.add(connection)
        return connection

    def _take(self, settings: frozenset[tuple[str, str]]) -> ServerConnection | None:
        """The most recently used idle connection with these settings; makes room by closing another's if the pool is full."""
        now = time.monotonic()
        for connection in tuple(reversed(self._idle)):
            if not connection.usable or now - connection.opened_at > self._limits.lifetime:
                self._idle.remove(connection)
                connection.close()
            elif connection.settings == settings:
                self._idle.remove(connection)
                return connection
        if self._idle and self.open >= self._limits.size:
            self._idle.popleft().close()
        return None

    def release(self, connection: ServerConnection) -> None:
        """Give a connection back; one that owes an answer, is in a transaction or may yet be cancelled is closed."""
        if connection not in self._lent:
            return
        self._lent.remove(connection)
        quiet = connection.busy_since is None and not connection.cancels
        if connection.usable and quiet and connection.transaction_status == "I":
            self._idle.append(connection)
        else:
            connection.close()
        self._free.release()

    def discard(self, connection: ServerConnection) -> None:
        """Take a connection out for ever."""
        connection.wire.abort()
        self.release(connection)

    def close_idle(self, *, everything: bool = False) -> None:
        """Close what has been idle for too long, or all that is idle."""
        now = time.monotonic()
        for connection in tuple(self._idle):
            if everything or not connection.usable or now - connection.idle_since > self._limits.idle_timeout:
                self._idle.remove(connection)
                connection.close()
