"""Connections to shards by asyncpg, with a limit on every wait.

Invariant: nothing here ever sends a CancelRequest: asyncpg does so when a call times out or its task is cancelled, which can turn
a COMMIT PREPARED into an apparent error (postgres-facts 14).  So calls run shielded, and a link that is too slow is terminated.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import asyncpg

from shardoperator.errors import ShardError
from shardoperator.names import APPLICATION

CONNECT_TIMEOUT = 5.0
"""Seconds for the whole login."""
COMMAND_TIMEOUT = 10.0
"""Seconds for one statement."""

SETTINGS: Mapping[str, str] = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "synchronous_commit": "on",
    "search_path": "pg_catalog",
    "client_min_messages": "warning",
    "statement_timeout": "0",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "60s",
}
"""What the protocol demands of recovery's sessions, whatever role and database say; `role` is the login itself."""

T = TypeVar("T")
Connection = asyncpg.Connection


@dataclass(frozen=True)
class ShardTarget:
    """Where a shard is, and a login there."""

    name: str
    number: int
    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)

    @property
    def where(self) -> str:
        """For messages."""
        return f"shard {self.name} ({self.host}:{self.port}/{self.database})"


async def connect(
    target: ShardTarget, *, application: str = "recovery", cluster: str = "", timeout: float = CONNECT_TIMEOUT
) -> Connection:
    """Log in; raises ShardError with a reason of ShardsReachable."""
    name = "/".join(part for part in (APPLICATION, cluster[:8], application) if part)
    try:
        async with asyncio.timeout(timeout):
            return await asyncpg.connect(
                host=target.host,
                port=target.port,
                user=target.user,
                password=target.password,
                database=target.database,
                ssl=False,
                timeout=timeout,
                command_timeout=None,
                statement_cache_size=0,
                server_settings={**SETTINGS, "role": target.user, "application_name": name[:63]},
            )
    except (
        OSError,
        TimeoutError,
        UnicodeError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
    ) as error:
        raise _explained(target, error, timeout) from error


def _explained(target: ShardTarget, error: Exception, timeout: float) -> ShardError:
    where = target.where
    match error:
        case TimeoutError():
            return ShardError("Timeout", f"{where} did not answer within {timeout:g} s: check the network and the server's load")
        case socket.gaierror() | UnicodeError():  # a name that no DNS could hold, such as a..b
            return ShardError("NameNotResolved", f"{where}: the host name {target.host!r} is not known: check spec.shards[].host")
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return ShardError(
                "AuthenticationFailed",
                f"{where} refuses the login {target.user!r}: {error}: check the Secret, the role and pg_hba.conf",
            )
        case asyncpg.InvalidCatalogNameError():
            return ShardError("ConnectionRefused", f"{where}: {error}: check spec.shards[].database, or create it")
        case ssl.SSLError():
            return ShardError("TLSError", f"{where}: {error}")
        case asyncpg.ConnectionDoesNotExistError():
            text = "closed the connection during the login: is that PostgreSQL, and not at its end?"
            return ShardError("ConnectionRefused", f"{where} {text}")
        case asyncpg.InternalClientError():
            return ShardError("ConnectionRefused", f"{where}: what answers there is not PostgreSQL: check host and port")
        case OSError():
            return ShardError("ConnectionRefused", f"{where}: {error.strerror or error}: is PostgreSQL running, on this port?")
        case _:
            return ShardError("ConnectionRefused", f"{where}: {error}")


async def limited(connection: Connection, call: Awaitable[T], timeout: float = COMMAND_TIMEOUT) -> T:
    """Await a call on the connection; after `timeout` seconds, or if we are cancelled, the link is dropped without a CancelRequest.

    Raises ShardError (Timeout, ConnectionRefused) for a lost link, and asyncpg.PostgresError for the server's own errors.
    """
    task = asyncio.ensure_future(call)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout)
    except asyncio.CancelledError:
        task.add_done_callback(_ignore)
        connection.terminate()
        task.add_done_callback(_ignore)
        raise
    if not done:
        task.add_done_callback(_ignore)
        connection.terminate()
        raise ShardError("Timeout", f"no answer within {timeout:g} s; the link was dropped")
    try:
        return task.result()
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresConnectionError) as error:
        connection.terminate()  # InternalClientError: the server had said goodbye while the session was idle
        raise ShardError("ConnectionRefused", f"the link was lost: {error}") from error


def _ignore(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


async def fetch(connection: Connection, sql: str, *arguments: object, timeout: float = COMMAND_TIMEOUT) -> list[asyncpg.Record]:
    """Rows, under a limit."""
    rows: list[asyncpg.Record] = await limited(connection, connection.fetch(sql, *arguments), timeout)
    return rows


async def execute(connection: Connection, sql: str, *, timeout: float = COMMAND_TIMEOUT) -> str:
    """The last tag of one simple-query message, under a limit."""
    tag: str = await limited(connection, connection.execute(sql), timeout)
    return tag


@asynccontextmanager
async def become(connection: Connection, role: str) -> AsyncIterator[None]:
    """SET ROLE in a round trip of its own, and back; raises asyncpg.PostgresError where we may not."""
    await execute(connection, 'SET ROLE "' + role.replace('"', '""') + '"')
    try:
        yield
    finally:
        if not connection.is_closed():
            await execute(connection, "RESET ROLE")


def close(connection: Connection) -> None:
    """At once; nothing of ours is ever left open on a link."""
    connection.terminate()
