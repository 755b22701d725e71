"""The extended protocol: a client's messages up to Sync or Flush, run as one batch.

A batch that needs one shard goes there whole, in one write.  Any other is run step by step in a transaction, which is committed
at Sync.  Invariant: after an error nothing of the client's is run until its Sync.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shardproxy.backend.connection import ServerConnection
from shardproxy.errors import Refused, SqlError
from shardproxy.protocol import messages as pg
from shardproxy.query.control import DATA_KINDS, Control, check_failed
from shardproxy.query.ending import Ending
from shardproxy.query.executor import Executor, Request
from shardproxy.query.prepared import ClientObjects, Portal, Prepared, ensure, server_name
from shardproxy.query.relay import ENDS_DESCRIPTION, ENDS_STATEMENT, Expect
from shardproxy.query.router import Router
from shardproxy.query.state import SessionState
from shardproxy.query.transaction import Transaction
from shardproxy.routing.plan import Assembly, Kind, Param, Statement

_EMPTY = Statement("", Kind.EMPTY)
_BIND_ENDS = frozenset({pg.BIND_COMPLETE})
_CLOSE_ENDS = frozenset({pg.CLOSE_COMPLETE})
_PARAMETERS_ENDS = frozenset({pg.PARAMETER_DESCRIPTION})


@dataclass(frozen=True)
class Step:
    """One message, resolved against what the client has named."""

    kind: int
    prepared: Prepared | None = None
    portal: Portal | None = None
    portal_name: str = ""
    limit: int = 0
    answer: bytes = b""
    """Where the proxy answers by itself."""

    @property
    def is_data(self) -> bool:
        """Whether a server has to see it."""
        return not self.answer and self.target is not None and self.target.kind in DATA_KINDS

    @property
    def changes_what_follows(self) -> bool:
        """Whether later messages mean something else once it has run: BEGIN, ROLLBACK, SET, DDL ..."""
        target = self.target
        if self.kind != pg.EXECUTE or target is None:
            return False
        return target.kind not in DATA_KINDS or target.kind is Kind.DDL

    @property
    def target(self) -> Statement | None:
        """The statement that it is about."""
        if self.portal is not None:
            return self.portal.prepared.statement
        return self.prepared.statement if self.prepared is not None else None


class Extended:
    """Parse, Bind, Describe, Execute, Close of one session."""

    def __init__(self, state: SessionState, router: Router, executor: Executor, control: Control, ending: Ending) -> None:
        self.state = state
        self.objects = ClientObjects()
        self.skipping = False
        """After an error, until Sync."""
        self._router = router
        self._executor = executor
        self._control = control
        self._ending = ending

    async def run(self, frames: list[bytes], *, sync: bool) -> None:
        """One batch; errors are answered here."""
        if not self.skipping:
            try:
                await self._batch(frames, sync=sync)
            except SqlError as error:
                self.skipping = True
                self.objects.doubt()
                self._fail()
                self.state.sink.put(pg.error_response(error))
        if sync:
            await self._sync()

    def _fail(self) -> None:
        if self.state.transaction is not None:
            self.state.transaction.failed = True

    async def _sync(self) -> None:
        """The end of an implicit transaction."""
        transaction = self.state.transaction
        if transaction is not None and not transaction.explicit:
            try:
                await self._ending.commit()
            except SqlError as error:
                self.state.sink.put(pg.error_response(error))
        self.skipping = False
        self.objects.settle()
        if self.state.transaction is None:
            self.objects.portals.clear()

    async def _batch(self, frames: list[bytes], *, sync: bool) -> None:
        steps: list[Step] = []
        for number, frame in enumerate(frames, start=1):
            try:
                steps.append(await self._resolve(frame))
            except SqlError:
                await self._run_each(steps)
                raise
            if steps[-1].changes_what_follows and number < len(frames):
                await self._run_each(steps)
                steps = []
        positions = self._one_shard(steps)
        executes = any(step.kind == pg.EXECUTE for step in steps)
        if positions is not None and (sync or not executes or self.state.transaction is not None):
            await self._run_whole(steps, positions)
        else:
            await self._run_each(steps)

    # --- resolving: names to objects, parameters to shards

    async def _resolve(self, frame: bytes) -> Step:
        match frame[0]:
            case pg.PARSE:
                return await self._parse(pg.parse_parse(frame))
            case pg.BIND:
                return self._bind(pg.parse_bind(frame))
            case pg.DESCRIBE:
                return self._describe(*pg.parse_target(frame))
            case pg.EXECUTE:
                name, limit = pg.parse_execute(frame)
                return Step(pg.EXECUTE, portal=self.objects.portal(name), portal_name=name, limit=limit)
            case pg.CLOSE:
                return self._close(*pg.parse_target(frame))
            case kind:
                raise Refused(
                    f"protocol message {chr(kind)!r}", "use a driver that speaks the simple or the extended query protocol"
                )

    async def _parse(self, parse: pg.Parse) -> Step:
        if parse.name and self.objects.is_taken(parse.name):
            raise SqlError("42P05", f'prepared statement "{parse.name}" already exists')
        try:
            statements = await self._router.statements(parse.sql, self.state)
        except Refused:
            check_failed(self.state, None)
            raise
        if len(statements) > 1:
            raise SqlError("42601", "cannot insert multiple commands into a prepared statement")
        statement = statements[0] if statements else _EMPTY
        check_failed(self.state, statement.kind)
        name = server_name(parse.sql, parse.oids) if parse.name else ""
        prepared = Prepared(parse.name, statement.text if statement.rewritten else parse.sql, parse.oids, statement, name)
        self.objects.add(prepared)
        return Step(pg.PARSE, prepared=prepared)

    def _bind(self, bind: pg.Bind) -> Step:
        prepared = self.objects.statement(bind.statement)
        statement = prepared.statement
        check_failed(self.state, statement.kind)
        portal = Portal(prepared, bind)
        if statement.kind in DATA_KINDS:
            oids = prepared.oids
            parameters = [
                Param(value, bind.is_binary(index), oids[index] if index < len(oids) else 0)
                for index, value in enumerate(bind.values)
            ]
            if len(parameters) < statement.parameters:
                raise SqlError(
                    "08P01",
                    f"bind message supplies {len(parameters)} parameters, but the prepared statement requires {statement.parameters}",
                )
            count = len(self.state.cluster.shards)
            portal.positions = statement.route.shards(parameters, count=count, home=self.state.home_now())
        self.objects.portals[bind.portal] = portal
        return Step(pg.BIND, portal=portal, portal_name=bind.portal)

    def _describe(self, kind: str, name: str) -> Step:
        if kind == "P":
            portal = self.objects.portal(name)
            answer = pg.NO_DATA_FRAME if portal.prepared.statement.kind not in DATA_KINDS else b""
            return Step(pg.DESCRIBE, portal=portal, portal_name=name, answer=answer)
        prepared = self.objects.statement(name)
        local = prepared.statement.kind not in DATA_KINDS
        return Step(pg.DESCRIBE, prepared=prepared, answer=pg.NO_PARAMETERS_FRAME + pg.NO_DATA_FRAME if local else b"")

    def _close(self, kind: str, name: str) -> Step:
        if kind == "S":
            self.objects.statements.pop(name, None)
            return Step(pg.CLOSE, answer=pg.CLOSE_COMPLETE_FRAME)
        portal = self.objects.portals.pop(name, None)
        if portal is None or self.state.transaction is None or portal.prepared.statement.kind not in DATA_KINDS:
            return Step(pg.CLOSE, answer=pg.CLOSE_COMPLETE_FRAME)
        return Step(pg.CLOSE, portal=portal, portal_name=name)

    # --- the whole batch on one shard

    def _one_shard(self, steps: list[Step]) -> frozenset[int] | None:
        """The one shard that the batch needs, or None where it needs several, or the session itself."""
        positions: frozenset[int] = frozenset()
        for step in steps:
            target = step.target
            if target is not None and target.kind not in DATA_KINDS:
                return None
            if step.portal is not None:
                positions |= step.portal.positions
        if len(positions) > 1:
            return None
        return positions or frozenset({self.state.home_now()})

    async def _run_whole(self, steps: list[Step], positions: frozenset[int]) -> None:
        if all(step.answer for step in steps):
            self.state.sink.put(b"".join(step.answer for step in steps))
            return
        trailing = [b""]
        await self._executor.run(
            positions,
            lambda connection: _request(connection, steps, trailing),
            writes=any(step.target is not None and step.target.writes for step in steps if step.kind == pg.EXECUTE),
            outside=self._only_describes(steps),
        )
        self.state.sink.put(trailing[0])
        self._note_ddl(steps)

    def _only_describes(self, steps: list[Step]) -> bool:
        """Nothing is run, and no shard of the transaction could know better: then none needs to join it."""
        transaction = self.state.transaction
        return transaction is not None and not transaction.joined and all(step.portal is None for step in steps)

    # --- step by step

    async def _run_each(self, steps: list[Step]) -> None:
        bound = {id(step.portal.prepared) for step in steps if step.portal is not None}
        for step in steps:
            if step.answer:
                self.state.sink.put(step.answer)
            elif step.kind == pg.PARSE and id(step.prepared) in bound:
                self.state.sink.put(pg.PARSE_COMPLETE_FRAME)  # the server that runs it will parse it
            elif step.is_data:
                await self._run_data(step)
            else:
                await self._run_control(step)

    async def _run_data(self, step: Step) -> None:
        if self.state.transaction is None and step.kind in (pg.BIND, pg.EXECUTE):
            self.state.transaction = Transaction(explicit=False)
        target = step.target
        assert target is not None
        if step.portal is not None:
            positions = step.portal.positions
            if len(positions) > 1 and step.limit:
                raise Refused("a row limit on a result from several shards", "fetch all rows, or name the sharding key")
        else:
            positions = frozenset({self.state.home_now()})
        trailing = [b""]
        await self._executor.run(
            positions,
            lambda connection: _request(connection, [step], trailing),
            assembly=target.assembly if len(positions) > 1 else Assembly.SINGLE,
            writes=target.writes and step.kind == pg.EXECUTE,
            outside=self._only_describes([step]),
        )
        self.state.sink.put(trailing[0])
        self._note_ddl([step])

    async def _run_control(self, step: Step) -> None:
        target = step.target
        assert target is not None
        match step.kind:
            case pg.PARSE:
                self.state.sink.put(pg.PARSE_COMPLETE_FRAME)
            case pg.BIND:
                self.state.sink.put(pg.BIND_COMPLETE_FRAME)
            case pg.EXECUTE if target.kind is Kind.EMPTY:
                self.state.sink.put(pg.EMPTY_QUERY_FRAME)
            case pg.EXECUTE:
                check_failed(self.state, target.kind)
                self.state.sink.put(pg.command_complete(await self._control_tag(target)))
            case _:
                self.state.sink.put(pg.CLOSE_COMPLETE_FRAME)

    async def _control_tag(self, target: Statement) -> str:
        if target.kind is Kind.DEALLOCATE:
            return self.deallocate(target.name)
        tag = await self._control.run(target)
        if target.kind is Kind.DISCARD_ALL:
            self.objects.statements.clear()
        return tag

    def deallocate(self, name: str) -> str:
        """DEALLOCATE name, or of everything where `name` is empty."""
        if not name:
            self.objects.statements.clear()
            return "DEALLOCATE ALL"
        self.objects.statement(name)
        del self.objects.statements[name]
        return "DEALLOCATE"

    def _note_ddl(self, steps: list[Step]) -> None:
        if any(step.kind == pg.EXECUTE and step.target is not None and step.target.kind is Kind.DDL for step in steps):
            self._router.changed(self.state)


def _request(connection: ServerConnection, steps: list[Step], trailing: list[bytes]) -> Request:
    """The steps as one connection must get them; what the proxy answers by itself goes between the server's replies."""
    frames: list[bytes] = []
    expects: list[Expect] = []
    before = b""
    sent: set[int] = set()

    def expect(ends: frozenset[int]) -> None:
        nonlocal before
        expects.append(Expect(ends, before=before))
        before = b""

    def make_known(prepared: Prepared) -> None:
        if id(prepared) in sent:
            return
        nonlocal before
        sent.add(id(prepared))
        data, swallowed = ensure(connection, prepared)
        if swallowed and before:
            swallowed[0] = replace(swallowed[0], before=before)
            before = b""
        frames.append(data)
        expects.extend(swallowed)

    for step in steps:
        if step.answer:
            before += step.answer
        elif step.kind == pg.PARSE and step.prepared is not None:
            make_known(step.prepared)
            before += pg.PARSE_COMPLETE_FRAME
        elif step.kind == pg.BIND and step.portal is not None:
            make_known(step.portal.prepared)
            frames.append(step.portal.bind.for_statement(step.portal.prepared.on_server))
            expect(_BIND_ENDS)
        elif step.kind == pg.EXECUTE:
            frames.append(pg.execute(step.portal_name, step.limit))
            expect(ENDS_STATEMENT)
        elif step.kind == pg.CLOSE:
            frames.append(pg.close("P", step.portal_name))
            expect(_CLOSE_ENDS)
        elif step.prepared is not None:
            make_known(step.prepared)
            frames.append(pg.describe("S", step.prepared.on_server))
            expect(_PARAMETERS_ENDS)
            expect(ENDS_DESCRIPTION)
        else:
            frames.append(pg.describe("P", step.portal_name))
            expect(ENDS_DESCRIPTION)
    trailing[0] = before
    return Request(frames=b"".join(frames), expects=expects)
