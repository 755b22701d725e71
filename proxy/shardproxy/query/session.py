"""One client from its login to its end: reads messages, hands them to the simple or the extended protocol, says ReadyForQuery."""

from __future__ import annotations

import asyncio
import logging

from shardproxy.errors import LinkLost, ProtocolViolation, SqlError
from shardproxy.protocol import messages as pg
from shardproxy.protocol.wire import Wire
from shardproxy.query.control import Control
from shardproxy.query.ending import Ending
from shardproxy.query.executor import Executor
from shardproxy.query.extended import Extended
from shardproxy.query.router import Router
from shardproxy.query.simple import Simple
from shardproxy.query.state import SessionState

log = logging.getLogger("pgshepherd.proxy.session")

_EXTENDED = frozenset({pg.PARSE, pg.BIND, pg.DESCRIBE, pg.EXECUTE, pg.CLOSE})


class Session:
    """The message loop."""

    def __init__(self, wire: Wire, state: SessionState, router: Router) -> None:
        self.wire = wire
        self.state = state
        executor = Executor(state)
        self._ending = Ending(state)
        control = Control(state, executor, self._ending)
        self._extended = Extended(state, router, executor, control, self._ending)
        self._simple = Simple(state, router, executor, control, self._ending, self._extended)
        self._batch: list[bytes] = []
        self.idle = True
        """Between two requests and outside a transaction: may be closed without harm."""
        self._draining = False

    async def run(self) -> None:
        """Until the client leaves, its link ends or the proxy drains; whatever is open is rolled back."""
        try:
            while not (self._draining and self.idle):
                frames = await self.wire.read_frames()
                self.idle = False
                for frame in frames:
                    if frame[0] == pg.TERMINATE:
                        return
                    await self._take(frame)
                self.idle = self.state.transaction is None and not self._batch
            self._goodbye(_shutting_down())
        except LinkLost:
            return
        except asyncio.CancelledError:
            self._goodbye(_shutting_down())
            raise
        except ProtocolViolation as error:
            log.warning("client %s: %s", self.wire.peer, error)
            self._goodbye(SqlError("08P01", str(error), severity="FATAL"))
        finally:
            await self._leave()

    async def _take(self, frame: bytes) -> None:
        kind = frame[0]
        if kind in (pg.SYNC, pg.FLUSH) and len(frame) > len(pg.SYNC_FRAME):
            raise ProtocolViolation(f"message {chr(kind)!r} has a body")
        if kind == pg.QUERY:
            if self._batch:
                await self._flush_batch(sync=False)
            await self._simple.run(pg.parse_query(frame))
            await self._ready()
        elif kind in _EXTENDED:
            self._batch.append(frame)
        elif kind == pg.SYNC:
            await self._flush_batch(sync=True)
            await self._ready()
        elif kind == pg.FLUSH:
            await self._flush_batch(sync=False)
            await self.state.sink.flush()
        elif kind == pg.FUNCTION_CALL:
            error = SqlError("0A000", "pgshepherd does not support the function call protocol", hint="use SELECT function(...)")
            self.state.sink.put(pg.error_response(error))
            await self._ready()
        elif kind not in (pg.COPY_DATA, pg.COPY_DONE, pg.COPY_FAIL):
            raise ProtocolViolation(f"unknown message {chr(kind)!r}")

    async def _flush_batch(self, *, sync: bool) -> None:
        batch, self._batch = self._batch, []
        await self._extended.run(batch, sync=sync)

    async def _ready(self) -> None:
        """Sent at once, as Postgres does: a client may wait for this before it lets the next of its pipeline go on."""
        self.state.sink.put(pg.ready_for_query(self.state.status))
        await self.state.sink.flush()

    def drain(self) -> None:
        """End after the transaction that is open now; at once if there is none."""
        self._draining = True
        if self.idle:
            self._goodbye(_shutting_down())

    def _goodbye(self, error: SqlError) -> None:
        self.wire.write(pg.error_response(error))
        self.wire.close()

    async def _leave(self) -> None:
        """Roll back and give every connection back; runs to its end even if the session is cancelled."""
        await asyncio.shield(self._ending.rollback())
        self.state.drop_own()
        if not self.wire.closed:
            self.wire.close()


def _shutting_down() -> SqlError:
    return SqlError("57P01", "terminating connection: the proxy is shutting down", severity="FATAL")
