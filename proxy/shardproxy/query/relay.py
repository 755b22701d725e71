"""Passing a server's replies on to the client, piece by piece.

Invariant: every request is read to its ReadyForQuery, errors included, so a connection never holds a reply that belongs to
somebody else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shardproxy.backend.connection import ServerConnection
from shardproxy.errors import LinkLost, ProtocolViolation, Refused, SqlError
from shardproxy.protocol import messages as pg
from shardproxy.protocol.wire import Wire

FLUSH_BYTES = 1 << 16
"""Bytes collected for the client before they are sent on, in the middle of a result."""

_COPY = frozenset({pg.COPY_IN, pg.COPY_OUT, pg.COPY_BOTH})
ENDS_STATEMENT = frozenset({pg.COMMAND_COMPLETE, pg.EMPTY_QUERY, pg.PORTAL_SUSPENDED})
ENDS_DESCRIPTION = frozenset({pg.ROW_DESCRIPTION, pg.NO_DATA})


class Sink:
    """What goes to the client, in order."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._chunks: list[bytes] = []
        self._size = 0
        self.told: dict[str, str] = {}
        """Settings as the client knows them."""

    def tell(self, name: str, value: str) -> None:
        """A ParameterStatus, where it is news."""
        if self.told.get(name) != value:
            self.told[name] = value
            self.put(pg.parameter_status(name, value))

    def put(self, data: bytes) -> None:
        """Queue whole frames."""
        self._chunks.append(data)
        self._size += len(data)

    @property
    def full(self) -> bool:
        """Whether it is time to `flush` in the middle of a result."""
        return self._size > FLUSH_BYTES

    @property
    def gone(self) -> bool:
        """Whether nobody is left to read."""
        return self._wire.closed

    async def flush(self) -> None:
        """Send what is queued, and wait while the client reads too slowly; a client that is gone is no error here."""
        if self._chunks:
            self._wire.write(b"".join(self._chunks))
            self._chunks.clear()
            self._size = 0
        if not self._wire.closed:
            try:
                await self._wire.drain()
            except LinkLost:
                return


@dataclass(frozen=True)
class Expect:
    """One piece of the replies to an extended-protocol request."""

    ends: frozenset[int]
    """Message types that end the piece."""
    forward: bool = True
    before: bytes = b""
    """Sent to the client before the piece: answers that the proxy gives by itself."""
    then: Callable[[], None] | None = None
    """Called when the piece ended well."""
    hold: bool = False
    """Keep the ending message back in `Reply.held`."""


@dataclass
class Reply:
    """What one request brought."""

    tags: list[str] = field(default_factory=list)
    error: SqlError | None = None
    description: bytes | None = None
    held: list[bytes] = field(default_factory=list)
    status: str = "I"


@dataclass
class Relay:
    """Reads the replies to one request on one connection.

    With `expects` the request was made of extended-protocol messages; without, it was a simple query whose first `skip` commands
    were the proxy's own.
    """

    connection: ServerConnection
    sink: Sink | None
    """None: nothing is passed on."""
    expects: Sequence[Expect] | None = None
    skip: int = 0
    hold: bool = False
    """Keep the last CommandComplete of a simple query back."""
    describe: bool = True
    """Pass RowDescription on."""
    shift: int = 0
    """Characters of the proxy's own in front of the client's text: error positions are moved back by so many."""
    reply: Reply = field(default_factory=Reply)
    _at: int = 0

    async def run(self) -> Reply:
        """Until ReadyForQuery; raises SqlError 08006 if the link is lost, after which nothing is known of the request."""
        self._begin_piece()
        try:
            while True:
                for frame in await self.connection.wire.read_frames():
                    if frame[0] == pg.READY_FOR_QUERY:
                        self.reply.status = chr(frame[5])
                        self.connection.ready(self.reply.status)
                        return self.reply
                    self._take(frame)
                if self.sink is not None and self.sink.full:
                    await self.sink.flush()
                    if self.sink.gone:
                        raise LinkLost("the client has left in the middle of its result")
        except (LinkLost, ProtocolViolation) as error:
            self.connection.wire.abort()
            number = self.connection.address.number
            raise SqlError("08006", f"the connection to shard {number} was lost: {error}") from error

    def _take(self, frame: bytes) -> None:
        kind = frame[0]
        if kind == pg.DATA_ROW:
            if self.reply.error is None and not self.skip:
                self._forward(frame)
        elif kind == pg.ERROR_RESPONSE:
            self.reply.error = self.reply.error or self._error(frame)
        elif kind == pg.PARAMETER_STATUS:
            name, value = self.connection.note_parameter(frame)
            if self.sink is not None:
                self.sink.tell(name, value)
        elif kind == pg.NOTICE_RESPONSE:
            self._forward(frame)
        elif kind in _COPY:
            self.connection.wire.abort()
            raise Refused("COPY", "load and unload each shard by itself")
        elif kind != pg.NOTIFICATION and self.reply.error is None:
            if self.expects is None:
                self._take_simple(kind, frame)
            else:
                self._take_extended(kind, frame, self.expects)

    def _error(self, frame: bytes) -> SqlError:
        error = pg.sql_error(frame)
        position = error.fields.get("P", "")
        if self.shift and position.isdigit():
            error.fields["P"] = str(max(1, int(position) - self.shift))
        return error

    def _take_simple(self, kind: int, frame: bytes) -> None:
        if self.skip:
            self.skip -= kind == pg.COMMAND_COMPLETE
            return
        for held in self.reply.held:
            self._forward(held)
        self.reply.held.clear()
        if kind == pg.COMMAND_COMPLETE:
            self.reply.tags.append(pg.parse_command_tag(frame))
        if kind in ENDS_STATEMENT and self.hold:
            self.reply.held.append(frame)
        elif kind == pg.ROW_DESCRIPTION:
            self._describe(frame)
        else:
            self._forward(frame)

    def _take_extended(self, kind: int, frame: bytes, expects: Sequence[Expect]) -> None:
        if self._at >= len(expects):
            raise ProtocolViolation(f"an unexpected message {chr(kind)!r}")
        expect = expects[self._at]
        if kind == pg.COMMAND_COMPLETE and expect.forward:
            self.reply.tags.append(pg.parse_command_tag(frame))
        if expect.hold and kind in expect.ends:
            self.reply.held.append(frame)
        elif kind == pg.ROW_DESCRIPTION:
            if expect.forward:
                self._describe(frame)
        elif expect.forward:
            self._forward(frame)
        if kind in expect.ends:
            if expect.then is not None:
                expect.then()
            self._at += 1
            self._begin_piece()

    def _begin_piece(self) -> None:
        if self.expects is not None and self._at < len(self.expects) and self.expects[self._at].before:
            self._forward(self.expects[self._at].before)

    def _describe(self, frame: bytes) -> None:
        self.reply.description = frame
        if self.describe:
            self._forward(frame)

    def _forward(self, data: bytes) -> None:
        if self.sink is not None:
            self.sink.put(data)
