"""Ending a transaction: plain COMMIT on one shard, the commit protocol on several, ROLLBACK.

Invariant: COMMIT is never said on a second participant by itself while two-phase commit is on.
"""

from __future__ import annotations

import asyncio

from shardproxy.errors import LinkLost, SqlError
from shardproxy.protocol import messages as pg
from shardproxy.query.commit import Commit, CommitResult, aborted_by_recovery, reader_error
from shardproxy.query.executor import roll_back
from shardproxy.query.state import SessionState
from shardproxy.query.transaction import Joined, Transaction
from shardproxy.twophase.messages import Outcome
from shardproxy.twophase.records import CLOSE_READER


class Ending:
    """Commits and rolls back for one session."""

    def __init__(self, state: SessionState) -> None:
        self.state = state

    async def rollback(self) -> None:
        """ROLLBACK on every shard that takes part; never raises."""
        transaction = self.state.transaction
        if transaction is None:
            return
        await asyncio.gather(*(roll_back(part.link, self.state.timeouts.finish) for part in transaction.joined.values()))
        self._end(transaction, kept=False)

    async def commit(self) -> str:
        """COMMIT; returns the tag (ROLLBACK for a failed transaction), or raises SqlError with the transaction ended."""
        transaction = self.state.transaction
        assert transaction is not None
        if transaction.failed:
            await self.rollback()
            return "ROLLBACK"
        await asyncio.gather(
            *(part.link.connection.unharmed(self.state.timeouts.prepare) for part in transaction.joined.values())
        )
        await self._commit(transaction)
        for entry in transaction.log:
            if entry.is_session_setting:
                self.state.remember(entry.setting, entry.text)
        if transaction.has_ddl:
            self.state.schema_changed()
        return "COMMIT"

    async def _commit(self, transaction: Transaction) -> None:
        writers = [position for position, part in transaction.joined.items() if part.writes]
        if len(transaction.joined) <= 1:
            await self._commit_one(transaction)
        elif len(writers) <= 1:
            await self._close_readers(transaction, writers)
            await self._commit_one(transaction)
        elif self._two_phase(transaction):
            await self._commit_all(transaction, writers)
        else:
            await self._commit_each(transaction)

    def _two_phase(self, transaction: Transaction) -> bool:
        user = self.state.user
        return user.two_phase_commit and (transaction.explicit or user.two_phase_commit_auto)

    def _end(self, transaction: Transaction, *, kept: bool) -> None:
        """Give every connection back; session settings of a transaction that did not commit go with their connections."""
        self._tell(transaction)
        self.state.transaction = None
        self.state.deadlock_victim = False
        dirty = any(entry.is_session_setting for entry in transaction.log)
        for position, part in transaction.joined.items():
            if dirty and not kept and self.state.own.get(position) is part.link.connection:
                part.link.connection.wire.abort()
            self.state.release(position, part.link)

    def _tell(self, transaction: Transaction) -> None:
        """What was set for this transaction only is as it was before."""
        if any(entry.savepoint is None for entry in transaction.log):
            for part in tuple(transaction.joined.values())[:1]:
                self.state.tell_of(part.link.connection)

    # --- one participant: a plain COMMIT

    async def _commit_one(self, transaction: Transaction) -> None:
        open_parts = [part for part in transaction.joined.values() if part.link.connection.transaction_status != "I"]
        for part in open_parts:
            number = part.link.connection.address.number
            try:
                result = await part.link.connection.query("COMMIT", None)
            except LinkLost as error:
                self._end(transaction, kept=False)
                if not part.writes:
                    raise SqlError("08006", f"the connection to shard {number} was lost: {error}") from error
                raise SqlError(
                    "08007",
                    f"transaction resolution unknown: the connection to shard {number} was lost during COMMIT",
                    hint="read your data to see whether it was committed",
                ) from error
            if result.error is not None:
                await self.rollback()
                raise result.error
            if result.tag != "COMMIT":
                self._end(transaction, kept=False)
                raise SqlError("40000", f"shard {number} rolled the transaction back")
        self._end(transaction, kept=True)

    async def _close_readers(self, transaction: Transaction, writers: list[int]) -> None:
        """Close the shards that only read, with the guard that they wrote nothing; any failure rolls everything back."""
        readers = [part for position, part in transaction.joined.items() if position not in writers]
        try:
            await asyncio.gather(*(self._close_reader(part) for part in readers))
        except SqlError:
            await self.rollback()
            raise

    async def _close_reader(self, part: Joined) -> None:
        connection = part.link.connection
        number = connection.address.number
        try:
            result = await connection.query(CLOSE_READER, self.state.timeouts.prepare)
        except LinkLost as error:
            raise SqlError("08006", f"the connection to shard {number} was lost: {error}") from error
        if result.error is not None or result.tag != "COMMIT":
            raise reader_error(result, number)

    # --- two-phase commit switched off: each shard for itself, as PgDog does

    async def _commit_each(self, transaction: Transaction) -> None:
        self.state.metrics.non_atomic()
        await self._commit_one(transaction)

    # --- the commit protocol

    async def _commit_all(self, transaction: Transaction, writers: list[int]) -> None:
        cluster = self.state.cluster
        if not cluster.cluster_id:
            await self.rollback()
            raise SqlError(
                "55000",
                "two-phase commit is on, but there is no pgshepherd.toml: a write on several shards can't be made atomic",
                hint="give the proxy its pgshepherd.toml, or switch two_phase_commit off to commit each shard for itself",
            )
        number = {position: cluster.shards[position].address.number for position in transaction.joined}
        commit = Commit(
            cluster,
            credentials=dict.fromkeys(number.values(), self.state.user.credentials),
            links={number[position]: part.link for position, part in transaction.joined.items()},
            timeouts=self.state.timeouts,
            metrics=self.state.metrics,
        )
        readers = tuple(number[position] for position in transaction.joined if position not in writers)
        self.state.committing = True
        try:
            await self._drive(transaction, commit, readers)
        finally:
            self.state.committing = False

    async def _drive(self, transaction: Transaction, commit: Commit, readers: tuple[int, ...]) -> None:
        try:
            await commit.begin(readers)
        except LinkLost as error:
            await self.rollback()
            raise SqlError("08006", f"the decision shard could not be asked for its epoch: {error}") from error
        except SqlError:
            await self.rollback()
            raise
        task = asyncio.create_task(commit.run(), name=f"commit {commit.txn}")
        self.state.background.add(task)
        task.add_done_callback(self.state.background.discard)
        try:
            result = await asyncio.shield(commit.reported)
        finally:
            self.state.transaction = None  # even if the session ends here: its links are the commit's now
        for one in result.unfinished:
            self.state.pending[self.state.cluster.position(one)] = task
        self._after(transaction, result)

    def _after(self, transaction: Transaction, result: CommitResult) -> None:
        """The commit's task gives pooled connections back itself; this session's own are free again."""
        if result.error is not None:
            result.error = self.state.explained(result.error)
        self._tell(transaction)
        self.state.deadlock_victim = False
        committed = result.outcome is Outcome.COMMITTED
        if not committed and any(entry.is_session_setting for entry in transaction.log):
            for part in transaction.joined.values():
                part.link.connection.wire.abort()
        if result.outcome is Outcome.UNKNOWN:
            raise SqlError(
                "08007",
                f"transaction resolution unknown: {result.txn}",
                detail="its decision shard could not be asked in time; it is committed everywhere or nowhere, recovery will see to it",
                hint=f"pgshepherd transactions list; or read your data later. The transaction is {result.txn}",
            )
        if not committed:
            raise result.error or aborted_by_recovery()
        if result.unfinished:
            message = f"committed; still finishing on shards {', '.join(str(one) for one in sorted(result.unfinished))}"
            self.state.sink.put(pg.notice_response("NOTICE", "00000", message))
