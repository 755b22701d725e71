"""Statements that the session answers or spreads itself: transaction control and settings.

Invariant: what one shard of a transaction was told (SET, SAVEPOINT), every other was told as well, or will be when it joins.
"""

from __future__ import annotations

from shardproxy.errors import Refused, SqlError
from shardproxy.protocol import messages as pg
from shardproxy.query.ending import Ending
from shardproxy.query.executor import Executor, Request
from shardproxy.query.state import SessionState
from shardproxy.query.transaction import Replay, Transaction
from shardproxy.routing.plan import Assembly, Kind, Statement

DATA_KINDS = frozenset({Kind.QUERY, Kind.DML, Kind.DDL, Kind.SHOW})
"""Kinds that go to shards and bring their own answer; all others are `Control`'s."""

_ALLOWED_IN_FAILED = frozenset({Kind.COMMIT, Kind.ROLLBACK, Kind.ROLLBACK_TO})


def check_failed(state: SessionState, kind: Kind | None) -> None:
    """Raise 25P02 for anything but the end of a failed transaction."""
    if state.transaction is not None and state.transaction.failed and kind not in _ALLOWED_IN_FAILED:
        raise SqlError("25P02", "current transaction is aborted, commands ignored until end of transaction block")


class Control:
    """Runs one control statement and returns its CommandComplete tag."""

    def __init__(self, state: SessionState, executor: Executor, ending: Ending) -> None:
        self.state = state
        self._executor = executor
        self._ending = ending

    async def run(self, statement: Statement) -> str:
        """Raises SqlError."""
        match statement.kind:
            case Kind.BEGIN:
                return self._begin(statement)
            case Kind.COMMIT:
                return await self._commit()
            case Kind.ROLLBACK:
                return await self._rollback()
            case Kind.SAVEPOINT | Kind.RELEASE | Kind.ROLLBACK_TO:
                return await self._savepoint(statement)
            case Kind.SET_TRANSACTION:
                return await self._set_transaction(statement)
            case Kind.SET | Kind.RESET:
                return await self._set(statement)
            case Kind.RESET_ALL:
                return await self._reset_all(statement)
            case Kind.DISCARD_ALL:
                return self._discard_all()
            case Kind.CLOSE_ALL:
                return "CLOSE CURSOR ALL"
            case Kind.UNLISTEN_ALL:
                return "UNLISTEN"
            case _:
                raise Refused(f"{statement.kind.value} here", "send it as a statement of its own")

    def _warn(self, sqlstate: str, message: str) -> None:
        self.state.sink.put(pg.notice_response("WARNING", sqlstate, message))

    def _begin(self, statement: Statement) -> str:
        transaction = self.state.transaction
        if transaction is None:
            self.state.transaction = Transaction(explicit=True, begin=statement.text, isolation=statement.isolation)
        elif transaction.explicit:
            self._warn("25001", "there is already a transaction in progress")
        elif transaction.joined and statement.isolation is not None:
            raise SqlError("25001", "SET TRANSACTION ISOLATION LEVEL must be called before any query")
        elif transaction.joined:
            transaction.explicit = True
        else:
            self.state.transaction = Transaction(explicit=True, begin=statement.text, isolation=statement.isolation)
        return statement.name

    async def _commit(self) -> str:
        transaction = self.state.transaction
        if transaction is None or not transaction.explicit:
            self._warn("25P01", "there is no transaction in progress")
        if transaction is None:
            return "COMMIT"
        return await self._ending.commit()

    async def _rollback(self) -> str:
        transaction = self.state.transaction
        if transaction is None or not transaction.explicit:
            self._warn("25P01", "there is no transaction in progress")
        await self._ending.rollback()
        return "ROLLBACK"

    # --- savepoints

    async def _savepoint(self, statement: Statement) -> str:
        transaction = self.state.transaction
        verb = statement.kind.value.upper()
        if transaction is None or not transaction.explicit:
            raise SqlError("25P01", f"{verb} can only be used in transaction blocks")
        known = True
        if statement.kind is Kind.ROLLBACK_TO:
            known = transaction.roll_back_to(statement.name)
        elif statement.kind is Kind.RELEASE:
            known = transaction.release(statement.name)
        if not known:
            transaction.failed = True
            raise SqlError("3B001", f'savepoint "{statement.name}" does not exist')
        await self._spread(statement.text)
        if statement.kind is Kind.ROLLBACK_TO:
            transaction.failed = False
            return "ROLLBACK"
        if statement.kind is Kind.SAVEPOINT:
            transaction.log.append(Replay(statement.text, savepoint=statement.name))
        return verb

    async def _spread(self, text: str) -> None:
        """Run it quietly on every shard that takes part."""
        transaction = self.state.transaction
        joined = frozenset(transaction.joined) if transaction is not None else frozenset()
        if joined:
            await self._executor.run(joined, lambda _: Request(text=text), assembly=Assembly.MIRROR, hold=True)

    # --- settings

    async def _set_transaction(self, statement: Statement) -> str:
        transaction = self.state.transaction
        if transaction is None:
            self._warn("25P01", "SET TRANSACTION can only be used in transaction blocks")
            return "SET"
        if statement.isolation is not None:
            transaction.isolation = statement.isolation
            transaction.check_joins(frozenset())
        await self._spread(statement.text)
        transaction.log.append(Replay(statement.text))
        return "SET"

    async def _set(self, statement: Statement) -> str:
        tag = "SET" if statement.kind is Kind.SET else "RESET"
        transaction = self.state.transaction
        if statement.is_local:
            if transaction is None:
                self._warn("25P01", "SET LOCAL can only be used in transaction blocks")
                return tag
            await self._set_in_transaction(transaction, statement, session=False)
        elif transaction is not None:
            await self._set_in_transaction(transaction, statement, session=True)
        else:
            await self._set_session(statement)
        return tag

    async def _set_in_transaction(self, transaction: Transaction, statement: Statement, *, session: bool) -> None:
        if session:
            for position, part in transaction.joined.items():
                self.state.adopt(position, part.link)
                part.link.pool = None
        for part in transaction.joined.values():
            part.link.settled = False
        positions = frozenset(transaction.joined) or frozenset({self.state.home})
        await self._executor.run(positions, lambda _: Request(text=statement.text), assembly=Assembly.MIRROR, hold=True)
        entry = Replay(statement.text, is_session_setting=session, setting=statement.name)
        transaction.log.append(entry)
        if session:
            for position, part in transaction.joined.items():
                self.state.adopt(position, part.link)
                part.link.pool = None
                part.link.settled = False

    async def _set_session(self, statement: Statement) -> None:
        """The value is checked by Postgres on the home shard; the session has connections of its own from here on."""
        self.state.sticky = True
        positions = frozenset(self.state.own) or frozenset({self.state.home})
        try:
            await self._executor.run(positions, lambda _: Request(text=statement.text), assembly=Assembly.MIRROR, hold=True)
        except SqlError:
            if not self.state.settings:
                self.state.drop_own()
            raise
        self.state.settings[statement.name] = statement.text

    async def _reset_all(self, statement: Statement) -> str:
        transaction = self.state.transaction
        if transaction is None:
            self.state.reset_all()
        elif self.state.settings or any(entry.savepoint is None for entry in transaction.log):
            await self._set_in_transaction(transaction, statement, session=True)
        return "RESET"

    def _discard_all(self) -> str:
        if self.state.transaction is not None:
            raise SqlError("25001", "DISCARD ALL cannot run inside a transaction block")
        self.state.reset_all()
        return "DISCARD ALL"
