"""Drives the commit protocol's coordinator over real connections.

Invariant: each command gets exactly one reply; a link that stays silent past its limit is dropped, never cancelled, and answered
as Lost.  The commit runs to its end in a task of its own, whatever becomes of the client.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from shardproxy.backend.cluster import Cluster
from shardproxy.backend.connection import Credentials, QueryResult, ServerConnection
from shardproxy.backend.pool import Pool
from shardproxy.errors import LinkLost, SqlError
from shardproxy.metrics import Metrics
from shardproxy.query import fence as fencing
from shardproxy.twophase import coordinator as protocol
from shardproxy.twophase import gid as gids
from shardproxy.twophase import messages as m
from shardproxy.twophase import records
from shardproxy.twophase.coordinator import Coordinator, Phase

log = logging.getLogger("pgshepherd.proxy.commit")

SUPERSEDED = "23502"
"""On our own record: the decision shard's epoch has risen twice since it was read."""


@dataclass(frozen=True)
class CommitTimeouts:
    """Seconds."""

    prepare: float = 60.0
    """A shard that is silent for longer in step 1 counts as lost: a clean abort."""
    resolution: float = 10.0
    """How long the client waits for the decision before it gets 08007."""
    finish: float = 5.0
    """How long the client waits for step 4; the rest goes on behind the COMMIT."""


@dataclass
class Link:
    """A participant's or reader's connection, lent from a pool; `settled` = no client's SET has touched this session."""

    connection: ServerConnection
    pool: Pool | None
    """None: it belongs to the session, which keeps it."""
    settled: bool = True


@dataclass
class CommitResult:
    """What the session tells its client."""

    outcome: m.Outcome
    txn: str
    unfinished: frozenset[int] = frozenset()
    error: SqlError | None = None


@dataclass
class Commit:
    """One commit in flight."""

    cluster: Cluster
    credentials: dict[int, Credentials]
    """The user's login by shard number."""
    links: dict[int, Link]
    timeouts: CommitTimeouts
    metrics: Metrics
    txn: str = field(default_factory=lambda: secrets.token_hex(16))
    error: SqlError | None = None
    reported: asyncio.Future[CommitResult] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _slots: list[int] = field(default_factory=list)
    """Shards on which it holds a slot."""
    _replies: asyncio.Queue[m.Reply] = field(default_factory=asyncio.Queue)
    _asking: dict[int, tuple[ServerConnection, Pool]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _state: Coordinator | None = None

    async def begin(self, readers: tuple[int, ...]) -> None:
        """Take the slots and the epoch; raises SqlError or LinkLost, and then nothing was prepared."""
        participants = frozenset(self.links) - frozenset(readers)
        self.cluster.check_durability(participants)
        decision = protocol.choose_decision(self.txn, participants)
        last_agent = self.cluster.may_be_last_agent(decision)
        self._slots = sorted(participants - {decision} if last_agent else participants)
        await self.cluster.slots.acquire(self._slots)
        try:
            self._state = await self._begin(participants, readers, decision, last_agent=last_agent)
        except BaseException:
            self.cluster.slots.release(self._slots)
            raise

    async def run(self) -> None:
        """Steps 1 to 5; sets `reported` once, and returns when nothing is left to do here."""
        assert self._state is not None
        try:
            with self.metrics.in_flight():
                await self._drive(self._state)
        finally:
            self.cluster.slots.release(self._slots)
            await self._close()

    async def _drive(self, state: Coordinator) -> None:
        phase = None
        state, commands = state.start()
        while True:
            self._state = state
            for command in commands:
                self._dispatch(command)
            if state.finished:
                return
            if state.phase is not phase:
                phase = state.phase
                self._arm(phase)
            state, commands = state.step(await self._replies.get())

    async def _begin(
        self, participants: frozenset[int], readers: tuple[int, ...], decision: int, *, last_agent: bool
    ) -> Coordinator:
        epoch = await self.cluster.epoch(decision, self.timeouts.resolution)
        return protocol.begin(
            cluster=self.cluster.cluster_id,
            txn=self.txn,
            epoch=epoch,
            decision=decision,
            timelines={number: self.links[number].connection.timeline for number in participants},
            owners={number: self.links[number].connection.owner for number in participants},
            readers=readers,
            last_agent=last_agent,
        )

    def _arm(self, phase: Phase) -> None:
        """Answer the client when a phase takes too long; asking, confirming and deciding share one limit."""
        if phase in (Phase.DECIDE, Phase.FINISH, Phase.ABORT):
            limit = self.timeouts.resolution if phase is Phase.DECIDE else self.timeouts.finish
            if phase is Phase.DECIDE and self._state is not None and self._state.last_agent:
                limit += self.timeouts.prepare  # deferred triggers run in this step
            loop = asyncio.get_running_loop()
            loop.call_later(limit, self._overdue, phase)

    def _overdue(self, phase: Phase) -> None:
        now = self._state.phase if self._state else Phase.DONE
        undecided = (Phase.DECIDE, Phase.ASK, Phase.CONFIRM, Phase.TOMBSTONE, Phase.FENCE)
        if now is phase or (phase in undecided and now in undecided):
            self._replies.put_nowait(m.Overdue())

    def _dispatch(self, command: m.CoordinatorCommand) -> None:
        if isinstance(command, m.Report):
            self._report(command)
        elif isinstance(command, m.ReportLoss):
            self.metrics.losses.inc()
            log.error("shard %d lost transaction %s, whose commit it had acknowledged", command.shard, self.txn)
        else:
            task = asyncio.create_task(self._run_one(command))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _report(self, report: m.Report) -> None:
        """Answer the client.  What is left to do uses control sessions, so that a shard that is away holds up no pool."""
        self.metrics.outcome(report.outcome.value)
        for shard, link in self.links.items():
            if link.pool is not None and link.connection.busy_since is None:
                link.pool.release(link.connection)
                self.links[shard] = replace(link, pool=None, settled=False)
        if not self.reported.done():
            self.reported.set_result(CommitResult(report.outcome, self.txn, report.unfinished, self.error))

    async def _run_one(self, command: m.CoordinatorCommand) -> None:
        handler: Callable[[Commit, m.CoordinatorCommand], Awaitable[m.Reply]] = _HANDLERS[type(command)]
        shard = command.shard if not isinstance(command, m.Report) else -1
        try:
            with self.metrics.step(type(command).__name__, shard):
                reply = await handler(self, command)
        except (LinkLost, SqlError) as error:
            reply = m.Lost(shard, str(error))
        self._replies.put_nowait(reply)

    # --- the commands

    async def prepare(self, command: m.Prepare) -> m.Reply:
        """Step 1 on one participant."""
        shard = command.shard
        try:
            result = await self._record_and(None, shard)
        except LinkLost as error:
            self._blame(SqlError("08006", f"the connection to shard {shard} was lost while preparing; nothing was committed"))
            return m.Lost(shard, str(error))
        return self._judge_prepare(shard, result)

    async def _record_and(self, verb: str | None, shard: int) -> QueryResult:
        """Step 1's message: the record, and PREPARE or another verb."""
        assert self._state is not None
        gid = next(each.gid for each in self._state.participants if each.gid.shard == shard)
        link = self.links[shard]
        text = records.prepare_message(
            gid,
            [each.gid.shard for each in self._state.participants],
            raise_synchronous_commit=not (link.settled and link.connection.synchronous_commit_on),
            verb=verb,
        )
        return await link.connection.query(text, self.timeouts.prepare)

    async def commit_last(self, command: m.CommitLast) -> m.Reply:
        """Step 3 with last agent; a lost link is no word on how it ended."""
        shard = command.shard
        try:
            return self._judge_last(shard, await self._record_and("COMMIT", shard))
        except LinkLost:
            text = f"the connection to shard {shard} was lost before it had committed; nothing was committed anywhere"
            self._blame(SqlError("40001", text, hint="try it again"))
            raise

    def _judge_last(self, shard: int, result: QueryResult) -> m.Reply:
        if result.error is not None:
            _blame_record(self, shard, result.error)
            return m.Refused(shard, open=result.status == "E")
        if result.tag != "COMMIT":
            self._blame(SqlError("40000", f"shard {shard} rolled the transaction back instead of committing it"))
            return m.Refused(shard)
        return m.Done(shard, durable=not _warned_late(result))

    def _judge_prepare(self, shard: int, result: QueryResult) -> m.Reply:
        if result.error is not None:
            _blame_record(self, shard, result.error)
            return m.Refused(shard, open=result.status != "I")
        if result.tag != "PREPARE TRANSACTION":
            self._blame(SqlError("40000", f"shard {shard} rolled the transaction back instead of preparing it"))
            return m.Refused(shard, open=result.status != "I")
        if any(code == "25P01" for code, _ in result.warnings):
            self._blame(SqlError("40000", f"shard {shard} says that it was outside the transaction when it prepared it"))
            return m.Refused(shard, prepared=True)
        if _warned_late(result):
            self._blame(SqlError("40000", f"shard {shard} could not replicate the prepared transaction to its standby"))
            return m.Refused(shard, prepared=True)
        return m.Prepared(shard)

    def _blame(self, error: SqlError) -> None:
        self.error = self.error or error

    async def close_reader(self, command: m.CloseReader) -> m.Reply:
        """End a shard that only read, with the guard that it wrote nothing."""
        shard = command.shard
        try:
            result = await self.links[shard].connection.query(records.CLOSE_READER, self.timeouts.prepare)
        except LinkLost:
            self._blame(SqlError("08006", f"the connection to shard {shard} was lost while preparing; nothing was committed"))
            raise
        if result.error is None and result.tag == "COMMIT":
            return m.Done(command.shard)
        self._blame(reader_error(result, command.shard))
        return m.Refused(command.shard, open=result.status != "I")

    async def rollback(self, command: m.Rollback) -> m.Reply:
        """End a transaction that was not prepared."""
        result = await self.links[command.shard].connection.query("ROLLBACK", self.timeouts.finish)
        return m.Done(command.shard) if result.error is None else m.Lost(command.shard, result.error.message)

    async def commit_prepared(self, command: m.CommitPrepared) -> m.Reply:
        """Steps 3 and 4."""
        return await self._finish(command.shard, records.commit_prepared(command.gid.text), command.timeline)

    async def rollback_prepared(self, command: m.RollbackPrepared) -> m.Reply:
        """Abort of a part that is or may be prepared."""
        return await self._finish(command.shard, records.rollback_prepared(command.gid.text), None)

    async def _finish(self, shard: int, text: str, timeline: int | None) -> m.Reply:
        """COMMIT or ROLLBACK PREPARED: on the session that prepared if nothing there can disturb it, else on a control session."""
        link = self.links[shard]
        here = link.connection
        if link.settled and here.steady and here.usable and timeline in (None, here.timeline):
            return _finished(shard, text, await here.query(text, self.timeouts.resolution))
        pool = self.cluster.control(self.credentials[shard], self.cluster.position(shard))
        connection = await pool.acquire(self.cluster.control_settings(pool.user))
        try:
            if timeline is not None and connection.timeline != timeline:
                pool.discard(connection)
                return m.Lost(shard, f"the server is on timeline {connection.timeline:x} now")
            return _finished(shard, text, await connection.query(text, self.timeouts.resolution))
        finally:
            pool.release(connection)

    async def connect(self, command: m.Connect) -> m.Reply:
        """Open this commit's one checked connection to the shard; an older one is given back."""
        self._give_back(command.shard)
        try:
            connection, pool = await self.cluster.checked(command.shard, self.timeouts.resolution)
        except (SqlError, LinkLost) as error:
            return m.Unreachable(command.shard, str(error))
        self._asking[command.shard] = (connection, pool)
        return m.Connected(command.shard, connection.timeline)

    async def read_gids(self, command: m.ReadGids) -> m.Reply:
        """The GID, before the record."""
        assert self._state is not None
        gid = next(each.gid for each in self._state.participants if each.gid.shard == command.shard)
        result = await self._ask(command.shard, records.read_gid(gid.text))
        found = ((gids.parse(row[0] or ""), row[1] or "") for row in result.rows)
        return m.GidsAre(command.shard, tuple((one, owner) for one, owner in found if one is not None))

    async def read_record(self, command: m.ReadRecord) -> m.Reply:
        """The record with `retired`, after the GID, on the same connection."""
        result = await self._ask(command.shard, records.read_record(self.txn, command.shard))
        retired, outcome, who = result.rows[0][:3]
        record = m.Record(outcome, who or "") if outcome is not None else None
        return m.RecordIs(command.shard, record, int(retired or 0))

    async def confirm_durable(self, command: m.ConfirmDurable) -> m.Reply:
        """A later write on the shard, on the connection that showed the record."""
        connection, _ = self._asking[command.shard]
        result = await connection.query(records.CONFIRM_DURABLE, self.timeouts.resolution)
        if result.error is not None:
            return m.Failed(command.shard, result.error.sqlstate, result.error.message)
        return m.Done(command.shard, durable=not any(code == "01000" for code, _ in result.warnings))

    async def write_tombstone(self, command: m.WriteTombstone) -> m.Reply:
        """On the connection that has just shown neither GID nor record."""
        connection, _ = self._asking[command.shard]
        return await fencing.tombstone(connection, command, self.timeouts.resolution)

    async def fence(self, command: m.Fence) -> m.Reply:
        """Over a control session of the user, who may end his own sessions; it must be on the server that was asked."""
        waiting, _ = self._asking[command.shard]
        pool = self.cluster.control(self.credentials[command.shard], self.cluster.position(command.shard))
        watching = await pool.acquire(self.cluster.control_settings(pool.user))
        try:
            if watching.timeline != waiting.timeline:
                pool.discard(watching)
                return m.Lost(command.shard, "the shard has failed over")
            return await fencing.fence(waiting, watching, command, self.timeouts.resolution)
        finally:
            pool.release(watching)

    async def wait(self, command: m.Wait) -> m.Reply:
        """A pause that doubles from 50 ms to 2 s."""
        await asyncio.sleep(min(2.0, 0.05 * 2 ** min(command.attempt, 10)))
        return m.Elapsed(command.shard)

    async def _ask(self, shard: int, sql: str) -> QueryResult:
        connection, _ = self._asking[shard]
        result = await connection.query(sql, self.timeouts.resolution)
        if result.error is not None:
            raise result.error
        return result

    # --- the end

    def _give_back(self, shard: int) -> None:
        if shard in self._asking:
            connection, pool = self._asking.pop(shard)
            pool.release(connection)

    async def _close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))
        for shard in tuple(self._asking):
            self._give_back(shard)
        for link in self.links.values():
            if link.pool is not None:
                link.pool.release(link.connection)
        if not self.reported.done():
            self.reported.cancel()


def _blame_record(commit: Commit, shard: int, error: SqlError) -> None:
    if error.sqlstate == SUPERSEDED:
        commit.cluster.forget_epoch(shard)
    commit._blame(_translated(error))


def _warned_late(result: QueryResult) -> bool:
    """Whether the server said, after the record, that its standby may not have it; before it, a trigger's own words are honest."""
    recorded = result.tags.index("INSERT 0 1") + 1 if "INSERT 0 1" in result.tags else len(result.tags)
    return any(code in ("01000", "57P01") and tags_before >= recorded for code, tags_before in result.warnings)


def _finished(shard: int, text: str, result: QueryResult) -> m.Reply:
    """What COMMIT or ROLLBACK PREPARED brought; only its own tag is success."""
    if result.error is not None:
        if result.error.sqlstate == "42704":
            return m.Gone(shard)
        return m.Failed(shard, result.error.sqlstate, result.error.message)
    if not text.startswith(f"{result.tag} '"):
        return m.Lost(shard, f"the answer was {result.tag!r}")
    return m.Done(shard, durable=not any(code == "01000" for code, _ in result.warnings))


def _translated(error: SqlError) -> SqlError:
    """A tombstone (23505) or a superseded epoch (23502) on our own table is a serialization failure for the application."""
    ours = error.sqlstate in ("23505", "23502") and (error.schema, error.table) == ("pgshepherd", "commit_record")
    return aborted_by_recovery() if ours else error


def aborted_by_recovery() -> SqlError:
    """Nothing failed here, yet it is rolled back on all shards."""
    return SqlError("40001", "the transaction was aborted by recovery while it was being committed", hint="try it again")


def reader_error(result: QueryResult, shard: int) -> SqlError:
    """Why a shard that should only have read could not be closed."""
    if result.error is None:
        return SqlError("40000", f"shard {shard} rolled the transaction back")
    if result.error.sqlstate == "22012":
        return SqlError(
            "0A000",
            f"a statement that looked read-only has written on shard {shard}; the transaction was rolled back",
            hint="do not call functions that write from a SELECT in a transaction over several shards",
        )
    return result.error


_HANDLERS: dict[type, Callable[..., Awaitable[m.Reply]]] = {
    m.Prepare: Commit.prepare,
    m.CommitLast: Commit.commit_last,
    m.CloseReader: Commit.close_reader,
    m.Rollback: Commit.rollback,
    m.CommitPrepared: Commit.commit_prepared,
    m.RollbackPrepared: Commit.rollback_prepared,
    m.Connect: Commit.connect,
    m.ReadGids: Commit.read_gids,
    m.ReadRecord: Commit.read_record,
    m.ConfirmDurable: Commit.confirm_durable,
    m.WriteTombstone: Commit.write_tombstone,
    m.Fence: Commit.fence,
    m.Wait: Commit.wait,
}
