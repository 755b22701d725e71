"""The recovery engine's driver: one checked connection for each shard and pass.

Invariant: what is done on a shard goes over the connection on which this pass has checked that it is the primary, the shard that
it was, and on no older timeline than ever seen.  A connection that was lost is not replaced within the pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

import asyncpg

from shardoperator.errors import ShardError
from shardoperator.shards import cleaning
from shardoperator.shards import fence as fencing
from shardoperator.shards.connect import ShardTarget, become, close, connect, execute, fetch
from shardoperator.shards.scan import Sighting, blocked, scan
from shardproxy.twophase import cleanup_messages as c
from shardproxy.twophase import messages as m
from shardproxy.twophase import records
from shardproxy.twophase.gid import Gid, parse

T = TypeVar("T")

_CHECK = """
SELECT pg_is_in_recovery() AS standby, s.cluster, s.number, s.system_identifier AS on_file,
       (SELECT system_identifier FROM pg_control_system()) AS system_identifier
FROM pgshepherd.shard s
"""
_OURS = (
    "SELECT gid, COALESCE(owner, '') AS owner FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, $1)"
)


class ShardLink:
    """One shard in one pass."""

    def __init__(self, target: ShardTarget, cluster: str, timelines: dict[int, int]) -> None:
        self.target = target
        self.timeline = 0
        self._cluster = cluster
        self._timelines = timelines
        self._connection: asyncpg.Connection | None = None
        self._failure: str | None = None
        self._lock = asyncio.Lock()
        self._warnings: list[str] = []

    async def open(self) -> None:
        """Connect and check, once in a pass; raises ShardError."""
        async with self._lock:
            if self._failure is not None:
                raise ShardError("Timeout", self._failure)
            if self._connection is not None:
                return
            try:
                await self._open()
            except (ShardError, asyncpg.PostgresError) as error:
                self._fail(str(error))
                raise ShardError(getattr(error, "reason", "ConnectionRefused"), str(error)) from error

    async def _open(self) -> None:
        connection = await connect(self.target, cluster=self._cluster)
        self._connection = connection
        connection.add_log_listener(self._on_warning)
        rows = await fetch(connection, _CHECK)
        if len(rows) != 1:
            raise ShardError("WrongShard", f"{self.target.where} has not been adopted: run pgshepherd adopt")
        row = rows[0]
        if row["standby"]:
            raise ShardError("ReadOnlyStandby", f"{self.target.where} is a standby")
        if (row["cluster"], row["number"]) != (self._cluster, self.target.number):
            raise ShardError("WrongShard", f"{self.target.where} is shard {row['number']} of cluster {row['cluster']}")
        if row["on_file"] != row["system_identifier"]:
            raise ShardError("WrongShard", f"{self.target.where} is another server than the one that was adopted")
        self.timeline = int((await fetch(connection, f"SELECT {records.TIMELINE}"))[0][0], 16)
        if self.timeline < self._timelines.get(self.target.number, 0):
            raise ShardError("WrongShard", f"{self.target.where} answers on an older timeline than before: an old primary")
        self._timelines[self.target.number] = self.timeline

    def _on_warning(self, _: Any, message: Any) -> None:
        self._warnings.append(getattr(message, "sqlstate", "") or "")

    def _fail(self, reason: str) -> None:
        self._failure = reason
        if self._connection is not None:
            close(self._connection)
            self._connection = None

    def close(self) -> None:
        """At the end of the pass."""
        if self._connection is not None:
            close(self._connection)
            self._connection = None

    @property
    def is_open(self) -> bool:
        """Whether it has been reached in this pass, and not lost since."""
        return self._connection is not None and not self._connection.is_closed()

    async def record_by_hand(self, gid: Gid, owner: str) -> m.Reply:
        """The commit record of a decision shard whose part is gone, as its owner would have written it; answers as a tombstone does."""
        sql = records.record_by_hand(gid.txn, gid.decision_shard, gid.epoch)
        async with self._lock:
            try:
                connection = self._open_connection()
                async with become(connection, owner):
                    tag = await execute(connection, sql)
            except (ShardError, asyncpg.PostgresError) as error:
                return m.Failed(self.target.number, getattr(error, "sqlstate", None) or "", str(error))
        return m.Done(self.target.number) if tag == "INSERT 0 1" else m.NotInserted(self.target.number)

    def _open_connection(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            raise ShardError("ConnectionRefused", self._failure or "the link was lost")
        return self._connection

    async def scan(self) -> list[Sighting]:
        """All prepared transactions there; raises ShardError."""
        await self.open()
        async with self._lock:
            return await _explained(scan(self._open_connection(), self.target.number))

    async def blocked(self, sighting: Sighting) -> tuple[str, ...]:
        """Whom it keeps waiting; raises ShardError."""
        async with self._lock:
            return await _explained(blocked(self._open_connection(), sighting.xid))

    # --- the clean-up engine's commands

    async def clean(self, command: c.Command, retention: float) -> c.Reply:
        """Exactly one reply; after a failure the connection is gone, and so is the pass."""
        shard = command.shard
        if isinstance(command, m.Connect):
            try:
                await self.open()
            except ShardError as error:
                return m.Unreachable(shard, str(error))
            return m.Connected(shard, self.timeline)
        async with self._lock:
            try:
                return await cleaning.run(self._open_connection(), command, retention)
            except (ShardError, asyncpg.PostgresError) as error:
                self._fail(str(error))
                return m.Lost(shard, str(error))

    async def losses(self) -> list[str]:
        """What is written down there as lost, and not acknowledged; raises ShardError."""
        await self.open()
        async with self._lock:
            return await _explained(cleaning.losses(self._open_connection()))

    # --- the recovery engine's commands

    async def run(self, command: m.RecoveryCommand, txn: str) -> m.Reply:
        """Exactly one reply to one command."""
        shard = command.shard
        if isinstance(command, m.Connect):
            try:
                await self.open()
            except ShardError as error:
                return m.Unreachable(shard, str(error))
            return m.Connected(shard, self.timeline)
        async with self._lock:
            try:
                return await self._dispatch(command, txn)
            except ShardError as error:
                self._fail(str(error))
                return m.Lost(shard, str(error))
            except asyncpg.PostgresError as error:
                return _failed(shard, command, error)

    async def _dispatch(self, command: m.RecoveryCommand, txn: str) -> m.Reply:
        connection, shard = self._open_connection(), command.shard
        match command:
            case m.ReadGids():
                rows = await fetch(connection, _OURS, "__pgdog_2pc_s1_")
                found = ((parse(row["gid"]), row["owner"]) for row in rows)
                return m.GidsAre(shard, tuple((gid, owner) for gid, owner in found if gid is not None and self._is_of(gid, txn)))
            case m.ReadRecord():
                row = (await fetch(connection, records.read_record(txn, shard)))[0]
                record = m.Record(row["outcome"], row["who"]) if row["outcome"] is not None else None
                return m.RecordIs(shard, record, row["retired"])
            case m.CommitPrepared(gid, owner):
                return await self._as_owner(connection, records.commit_prepared(gid.text), owner, shard)
            case m.RollbackPrepared(gid, owner):
                return await self._as_owner(connection, records.rollback_prepared(gid.text), owner, shard)
            case m.ConfirmDurable():
                return await self._plain(connection, records.CONFIRM_DURABLE, shard)
            case m.WriteTombstone():
                return await fencing.tombstone(connection, command)
            case m.Fence():
                return await self._fence(connection, command)
            case m.WriteAudit(_, text):
                await self._audit(connection, txn, "announce", text, ())
                return m.Done(shard)
            case _:
                raise AssertionError(f"no such command: {command}")

    def _is_of(self, gid: Gid, txn: str) -> bool:
        return (gid.cluster, gid.txn, gid.shard) == (self._cluster, txn, self.target.number)

    async def _as_owner(self, connection: asyncpg.Connection, sql: str, owner: str, shard: int) -> m.Reply:
        """SET ROLE in a round trip of its own, the command alone in its message, RESET ROLE."""
        if not owner:
            return m.Failed(shard, "42704", "its owner was dropped: only a superuser can finish it")
        async with become(connection, owner):
            return await self._plain(connection, sql, shard, timeout=30.0)

    async def _fence(self, connection: asyncpg.Connection, command: m.Fence) -> m.Reply:
        """The second session must have shown that it is on the same server."""
        if not command.owner:
            return m.Failed(command.shard, "42704", "its owner was dropped: only a superuser can end its session")
        second = ShardLink(self.target, self._cluster, self._timelines)
        try:
            await second.open()
            if second.timeline != self.timeline:
                raise ShardError("WrongShard", f"{self.target.where} has failed over")
            watching = second._open_connection()
        except ShardError as error:
            return m.Failed(command.shard, "08001", f"no second session there: {error}")
        try:
            return await fencing.fence(connection, watching, command)
        finally:
            second.close()

    async def _plain(self, connection: asyncpg.Connection, sql: str, shard: int, timeout: float = 10.0) -> m.Reply:
        self._warnings.clear()
        await execute(connection, sql, timeout=timeout)
        await asyncio.sleep(0)  # asyncpg calls its log listeners soon, not at once
        return m.Done(shard, durable="01000" not in self._warnings)

    async def audit(self, txn: str, action: str, reason: str, evidence: tuple[str, ...]) -> None:
        """What was done, and why; raises ShardError."""
        async with self._lock:
            await _explained(self._audit(self._open_connection(), txn, action, reason, evidence))

    async def _audit(self, connection: asyncpg.Connection, txn: str, action: str, reason: str, evidence: tuple[str, ...]) -> None:
        await fetch(
            connection,
            "INSERT INTO pgshepherd.audit (cluster, txn, shard, action, reason, evidence) VALUES ($1, $2::text::uuid, $3, $4, $5, $6)",
            self._cluster, txn, self.target.number, action, reason, list(evidence),
        )  # fmt: skip


async def _explained(call: Awaitable[T]) -> T:
    """The server's own errors as ShardError, for callers that know no driver."""
    try:
        return await call
    except asyncpg.PostgresError as error:
        raise ShardError("QueryFailed", f"{error.sqlstate} {error}") from error


def _failed(shard: int, command: m.RecoveryCommand, error: asyncpg.PostgresError) -> m.Reply:
    sqlstate = error.sqlstate or "XX000"
    if isinstance(command, m.CommitPrepared | m.RollbackPrepared) and sqlstate == "42704":
        return m.Gone(shard)
    if isinstance(command, m.ReadGids | m.ReadRecord | m.ConfirmDurable):
        return m.Lost(shard, f"{sqlstate} {error}")
    message = str(error)
    if sqlstate == "42501" and isinstance(command, m.CommitPrepared | m.RollbackPrepared | m.Fence):
        message = f'{error}; GRANT "{command.owner}" TO the recovery login'
    return m.Failed(shard, sqlstate, message)


async def resolve_on(links: Mapping[int, ShardLink], command: m.RecoveryCommand, txn: str) -> m.Reply:
    """A command on the shard that it names; a shard without a link is unreachable."""
    link = links.get(command.shard)
    if link is None:
        return m.Unreachable(command.shard, "no connection to this shard is configured")
    return await link.run(command, txn)
