"""The simple protocol: one text with any number of statements, which are one transaction unless the text says otherwise."""

from __future__ import annotations

from shardproxy.errors import Refused, SqlError
from shardproxy.protocol import messages as pg
from shardproxy.query.control import DATA_KINDS, Control, check_failed
from shardproxy.query.ending import Ending
from shardproxy.query.executor import Executor, Request
from shardproxy.query.extended import Extended
from shardproxy.query.router import Router
from shardproxy.query.state import SessionState
from shardproxy.query.transaction import Transaction
from shardproxy.routing.plan import Assembly, Kind, Statement


class Simple:
    """Query messages of one session."""

    def __init__(
        self, state: SessionState, router: Router, executor: Executor, control: Control, ending: Ending, extended: Extended
    ) -> None:
        self.state = state
        self._router = router
        self._executor = executor
        self._control = control
        self._ending = ending
        self._extended = extended

    async def run(self, sql: str) -> None:
        """One Query message; errors are answered here."""
        try:
            await self._text(sql)
        except SqlError as error:
            await self._fail()
            self.state.sink.put(pg.error_response(error))
        if self.state.transaction is None:
            self._extended.objects.portals.clear()

    async def _fail(self) -> None:
        """An error ends an implicit transaction, and fails an explicit one."""
        transaction = self.state.transaction
        if transaction is None:
            return
        transaction.failed = True
        if not transaction.explicit:
            await self._ending.rollback()

    async def _text(self, sql: str) -> None:
        try:
            statements = await self._router.statements(sql, self.state)
        except Refused:
            check_failed(self.state, None)
            raise
        if not statements:
            self.state.sink.put(pg.EMPTY_QUERY_FRAME)
        elif len(statements) == 1:
            await self._alone(statements[0])
        else:
            await self._many(statements)

    async def _alone(self, statement: Statement) -> None:
        """One statement: it needs a transaction of its own only if it writes on several shards."""
        check_failed(self.state, statement.kind)
        if statement.kind not in DATA_KINDS:
            self.state.sink.put(await self._control_frame(statement))
            return
        positions = self._positions(statement)
        if self.state.transaction is None and statement.writes and len(positions) > 1:
            self.state.transaction = Transaction(explicit=False)
            held = await self._data(statement, positions, hold=True)
            await self._ending.commit()
            self._put(held)
        else:
            await self._data(statement, positions, hold=False)

    async def _many(self, statements: tuple[Statement, ...]) -> None:
        """Each after the other; what is not inside BEGIN and COMMIT is one implicit transaction, committed before the last answer."""
        for index, statement in enumerate(statements):
            check_failed(self.state, statement.kind)
            last = index == len(statements) - 1
            if statement.kind not in DATA_KINDS:
                held = [await self._control_frame(statement)]
            else:
                if self.state.transaction is None:
                    self.state.transaction = Transaction(explicit=False)
                held = await self._data(statement, self._positions(statement), hold=True)
            transaction = self.state.transaction
            if last and transaction is not None and not transaction.explicit:
                await self._ending.commit()
            self._put(held)

    def _put(self, frames: list[bytes]) -> None:
        for frame in frames:
            self.state.sink.put(frame)

    def _positions(self, statement: Statement) -> frozenset[int]:
        if statement.parameters:
            raise SqlError("42P02", "there is no parameter $1")
        return statement.route.shards((), count=len(self.state.cluster.shards), home=self.state.home_now())

    async def _data(self, statement: Statement, positions: frozenset[int], *, hold: bool) -> list[bytes]:
        reply = await self._executor.run(
            positions,
            lambda _: Request(text=statement.text),
            assembly=statement.assembly if len(positions) > 1 else Assembly.SINGLE,
            writes=statement.writes,
            hold=hold,
        )
        if statement.kind is Kind.DDL:
            self._router.changed(self.state)
        return reply.held

    async def _control_frame(self, statement: Statement) -> bytes:
        if statement.kind is Kind.EMPTY:
            return pg.EMPTY_QUERY_FRAME
        if statement.kind is Kind.DEALLOCATE:
            return pg.command_complete(self._extended.deallocate(statement.name))
        frame = pg.command_complete(await self._control.run(statement))
        if statement.kind is Kind.DISCARD_ALL:
            self._extended.objects.statements.clear()
        return frame
