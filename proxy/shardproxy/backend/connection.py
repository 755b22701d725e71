"""One logged-in connection to one shard, and what it has shown of its server.

Invariant: timeline and system_identifier were read on this very connection, when it was opened, from a primary (!); a
connection to any other server than the configured one is never handed out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from shardproxy.errors import LinkLost, ProtocolViolation, SqlError
from shardproxy.protocol import messages as pg
from shardproxy.protocol.auth import login
from shardproxy.protocol.wire import Wire, connect
from shardproxy.twophase import records


@dataclass(frozen=True)
class ShardAddress:
    """Where one shard is, and which server it must be."""

    position: int
    """Index in pgdog.toml's list: what the hash yields."""
    number: int
    """The shard's number for ever: what GIDs and records name."""
    host: str
    port: int
    database: str
    system_identifier: int | None = None
    """None: not known (no pgshepherd.toml), so nothing is checked and nothing may be prepared."""


@dataclass(frozen=True)
class Credentials:
    """A login on a shard."""

    user: str
    password: str = field(repr=False)


@dataclass
class QueryResult:
    """Everything that came back for one simple-query message."""

    rows: list[tuple[str | None, ...]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    error: SqlError | None = None
    warnings: list[tuple[str, int]] = field(default_factory=list)
    """SQLSTATE of each notice that is a warning, and how many tags came before it."""
    status: str = "I"

    @property
    def tag(self) -> str:
        """The last command's tag; empty if there was none."""
        return self.tags[-1] if self.tags else ""


_IDENTITY_AND_SETTINGS = (
    f"SELECT {records.TIMELINE}, system_identifier, pg_catalog.current_setting('statement_timeout'), "
    "pg_catalog.current_setting('lock_timeout'), pg_catalog.current_setting('client_min_messages'), "
    "pg_catalog.current_setting('synchronous_commit'), current_user = session_user FROM pg_catalog.pg_control_system()"
)
"""Which server, on which timeline, and the settings that decide whether steps 3 and 4 may run on this session.

Fails with 55000 on a standby, which is wanted.
"""


class ServerConnection:
    """A connection in simple or extended use by one session at a time."""

    def __init__(
        self, wire: Wire, address: ShardAddress, owner: str, parameters: Mapping[str, str], key: tuple[int, int]
    ) -> None:
        self.wire = wire
        self.address = address
        self.owner = owner
        """The login role: owner of whatever is prepared here."""
        self.parameters = dict(parameters)
        self.pid, self.secret = key
        self.settings: frozenset[tuple[str, str]] = frozenset()
        """Startup settings that it was opened with: only clients with the same ones may share it."""
        self.timeline = 0
        self.steady = False
        """Whether COMMIT PREPARED may run here: as the login role, with no timeout, no lowered durability, no cancel under way."""
        self.synchronous_commit_on = False
        self.statements: dict[str, None] = {}
        """Names of the prepared statements there, least recently used first."""
        self.unnamed: object = None
        """What the unnamed statement was parsed from."""
        self.busy_since: float | None = None
        """time.monotonic() at which the outstanding request was sent."""
        self.transaction_status = "I"
        """Of the last ReadyForQuery: I, T or E."""
        self.cancels = 0
        """CancelRequests under way: one may hit whatever runs here next."""
        self._unharmed = asyncio.Event()
        self._unharmed.set()
        self.idle_since = time.monotonic()
        self.opened_at = self.idle_since

    @property
    def usable(self) -> bool:
        """Whether it may be used again: one whose server said something unasked is about to end, or has other settings now."""
        return not self.wire.closed and not (self.busy_since is None and self.wire.has_unread)

    def send(self, data: bytes) -> None:
        """Send one or more whole frames that a ReadyForQuery will answer."""
        self.busy_since = time.monotonic()
        self.wire.write(data)

    def send_query(self, sql: str) -> None:
        """Send a simple query, which makes the server forget its unnamed statement."""
        self.unnamed = None
        self.send(pg.query(sql))

    def ready(self, status: str) -> None:
        """Every outstanding request was answered; `status` is that of the last ReadyForQuery."""
        self.busy_since = None
        self.transaction_status = status
        self.idle_since = time.monotonic()

    async def unharmed(self, timeout: float) -> None:
        """Wait until no CancelRequest is under way; the link is dropped if that lasts."""
        try:
            async with asyncio.timeout(timeout):
                await self._unharmed.wait()
        except TimeoutError:
            self.wire.abort()

    async def cancel(self, busy_since: float | None, timeout: float) -> bool:
        """Ask the server to cancel the request that was sent at `busy_since`, and only that; True if it was asked.

        Silent when the server can't be reached: a cancel is only a wish.  It may arrive late, so steps 3 and 4 never run on this
        connection from now on (`steady`).
        """
        try:
            wire = await connect(self.address.host, self.address.port, timeout)
        except (OSError, LinkLost, TimeoutError):
            return False
        try:
            if busy_since is None or self.busy_since != busy_since:
                return False
            self.cancels += 1
            self.steady = False
            self._unharmed.clear()
            wire.write(pg.cancel_request(self.pid, self.secret))
            await wire.wait_closed(timeout)
        except LinkLost:
            self.wire.abort()  # it may still arrive at any time
            return True
        finally:
            wire.abort()
        self.cancels -= 1
        if not self.cancels:
            self._unharmed.set()
        return True

    async def query(self, sql: str, timeout: float | None) -> QueryResult:
        """Run one simple-query message to its end; a server's error is in the result.

        Raises LinkLost if the link ends or `timeout` seconds pass without a ReadyForQuery; the connection is closed then,
        without a CancelRequest (which could turn a commit into an apparent error).
        """
        self.send_query(sql)
        try:
            return await self.collect(timeout)
        except (LinkLost, ProtocolViolation) as error:
            self.wire.abort()
            raise LinkLost(f"shard {self.address.number}: {error}") from error

    async def collect(self, timeout: float | None) -> QueryResult:
        """Read one request's replies up to ReadyForQuery."""
        result = QueryResult()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.001, deadline - time.monotonic())
            for frame in await self.wire.read_frames(left):
                if frame[0] == pg.READY_FOR_QUERY:
                    result.status = chr(frame[5])
                    self.ready(result.status)
                    return result
                if frame[0] == pg.PARAMETER_STATUS:
                    self.note_parameter(frame)
                _collect(result, frame)

    def note_parameter(self, frame: bytes) -> tuple[str, str]:
        """Keep what a ParameterStatus says; returns its name and value."""
        name, value = pg.parse_parameter_status(frame)
        self.parameters[name] = value
        return name, value

    async def identify(self, timeout: float) -> None:
        """Read timeline and identity; raises SqlError if the server is a standby or not the one on file."""
        result = await self.query(_IDENTITY_AND_SETTINGS, timeout)
        where = f"shard {self.address.number} ({self.address.host}:{self.address.port})"
        if result.error is not None:
            if result.error.sqlstate == "55000":
                raise SqlError("08001", f"{where} is in recovery: a standby answers in the place of its primary")
            raise result.error
        timeline, system_identifier, statement_timeout, lock_timeout, messages, synchronous, own_role = result.rows[0]
        if self.address.system_identifier is not None and int(system_identifier or 0) != self.address.system_identifier:
            raise SqlError("08001", f"{where} is another server than the one that was adopted", hint="run pgshepherd check")
        self.timeline = int(timeline or "0", 16)
        self.synchronous_commit_on = synchronous in ("on", "remote_apply")
        quiet = messages in ("warning", "notice", "info", "log") or str(messages).startswith("debug")
        self.steady = self.synchronous_commit_on and quiet and (statement_timeout, lock_timeout, own_role) == ("0", "0", "t")

    def close(self) -> None:
        """Say goodbye and close; never waits."""
        if not self.wire.closed:
            self.wire.write(pg.terminate())
        self.wire.close()


def _collect(result: QueryResult, frame: bytes) -> None:
    kind = frame[0]
    if kind == pg.DATA_ROW:
        result.rows.append(pg.parse_data_row_text(frame))
    elif kind == pg.COMMAND_COMPLETE:
        result.tags.append(pg.parse_command_tag(frame))
    elif kind == pg.ERROR_RESPONSE and result.error is None:
        result.error = pg.sql_error(frame)
    elif kind == pg.NOTICE_RESPONSE:
        fields = pg.parse_fields(frame)
        if fields.get("V", fields.get("S", "")) == "WARNING":
            result.warnings.append((fields.get("C", ""), len(result.tags)))


NOTICE_OUR_DEATH: Mapping[str, str] = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
"""Startup parameters by which a server soon ends the open transactions of a proxy whose host is gone."""


async def open_connection(
    address: ShardAddress, credentials: Credentials, settings: Mapping[str, str], timeout: float
) -> ServerConnection:
    """Connect, log in and identify within `timeout` seconds for each of the three; raises SqlError 08001 or the server's own."""
    where = f"shard {address.number} ({address.host}:{address.port})"
    try:
        wire = await connect(address.host, address.port, timeout)
    except (OSError, LinkLost, TimeoutError) as error:
        raise SqlError("08001", f"could not connect to {where}: {error or type(error).__name__}") from error
    try:
        greeting = await login(
            wire,
            user=credentials.user,
            password=credentials.password,
            database=address.database,
            parameters={**NOTICE_OUR_DEATH, **settings},
            timeout=timeout,
        )
        key = (greeting.pid, greeting.secret)
        connection = ServerConnection(wire, address, credentials.user, greeting.parameters, key)
        connection.settings = frozenset(settings.items())
        await connection.identify(timeout)
    except (LinkLost, ProtocolViolation) as error:
        wire.abort()
        raise SqlError("08001", f"could not log in to {where}: {error}") from error
    except BaseException:
        wire.abort()
        raise
    return connection
