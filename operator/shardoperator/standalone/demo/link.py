"""A link in front of a PostgreSQL server that reads the stream and can stop at a message: how faults are made to happen exactly.

No failpoint is in the product: it is the network that fails.  Invariant: without a trap the link passes everything on, unchanged
and in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

CHUNK = 1 << 16
RECORDED = 2048


class Direction(Enum):
    """Which way a message goes."""

    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


class When(Enum):
    """Whether the message at which the link stops is still passed on."""

    BEFORE = "before"
    MIDDLE = "in the middle of"
    AFTER = "after"


@dataclass
class Trap:
    """Stops a connection at the first message that matches; only the first, whichever connection it is on."""

    direction: Direction
    matches: Callable[[bytes], bool]
    when: When
    cut: bool = False
    """Cut the connection there instead of holding it."""
    hit: asyncio.Event = field(default_factory=asyncio.Event)


def containing(text: str, kind: str = "") -> Callable[[bytes], bool]:
    """Messages with this text in them, of this type if one is given."""
    wanted = text.encode()
    return lambda frame: wanted in frame and (not kind or frame[:1] == kind.encode())


class FaultLink:
    """Listens on loopback and forwards to one server."""

    def __init__(self, port: int) -> None:
        self.target = port
        """The server's port; change it, and new connections go elsewhere."""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._traps: list[Trap] = []
        self._healed = asyncio.Event()
        self._healed.set()
        self.refusing = False
        """New connections are closed at once."""
        self.seen: list[tuple[Direction, bytes]] | None = None
        """Set it to a list to record the beginning of every message."""
        self.port = 0

    @property
    def passing(self) -> bool:
        """Whether it passes messages on now."""
        return self._healed.is_set()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cut everything and stop."""
        self.cut()
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def trap(self, direction: Direction, matches: Callable[[bytes], bool], when: When, *, cut: bool = False) -> Trap:
        """Set a trap; wait for its `hit`."""
        trap = Trap(direction, matches, when, cut)
        self._traps.append(trap)
        return trap

    def hold(self) -> None:
        """Pass nothing on from now, in either direction, without closing anything."""
        self._healed.clear()

    def heal(self) -> None:
        """Pass on again, also what was held at a trap."""
        self.refusing = False
        self._traps.clear()
        self._healed.set()

    def cut(self) -> None:
        """Close every connection at once."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, server_writer}
        self._writers |= pair
        ways = [
            asyncio.create_task(self._forward(Direction.TO_SERVER, reader, server_writer, typed=False)),
            asyncio.create_task(self._forward(Direction.TO_CLIENT, server_reader, writer, typed=True)),
        ]
        self._tasks.update(ways)
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in ways:
                task.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._tasks.difference_update(ways)
            self._writers -= pair
            for each in pair:
                each.close()

    async def _forward(
        self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, typed: bool
    ) -> None:
        """Message by message; the client's first packets have no type byte."""
        buffer, fresh = bytearray(), direction is Direction.TO_CLIENT
        try:
            while data := await reader.read(CHUNK):
                if fresh and data in (b"N", b"S"):  # the one-byte answer to an encryption request
                    writer.write(data)
                    continue
                fresh = False
                buffer += data
                while (size := _frame_size(buffer, typed=typed)) is not None:
                    frame = bytes(buffer[:size])
                    del buffer[:size]
                    typed = typed or int.from_bytes(frame[4:8], "big") >> 16 == 3
                    if not await self._pass(direction, frame, writer):
                        return
        except (ConnectionError, OSError):
            return

    async def _pass(self, direction: Direction, frame: bytes, writer: asyncio.StreamWriter) -> bool:
        if self.seen is not None:
            self.seen.append((direction, frame[:RECORDED]))
        await self._healed.wait()
        trap = next(
            (one for one in self._traps if one.direction is direction and not one.hit.is_set() and one.matches(frame)), None
        )
        if trap is None:
            writer.write(frame)
            await writer.drain()
            return True
        passed = {When.BEFORE: 0, When.MIDDLE: len(frame) // 2, When.AFTER: len(frame)}[trap.when]
        writer.write(frame[:passed])
        await writer.drain()
        self._healed.clear()
        trap.hit.set()
        if trap.cut:
            self._healed.set()
            return False
        await self._healed.wait()
        writer.write(frame[passed:])
        await writer.drain()
        return True


def _frame_size(buffer: bytearray, *, typed: bool) -> int | None:
    """Bytes of the first whole message in the buffer; None while there is none."""
    head = 1 if typed else 0
    if len(buffer) < head + 4:
        return None
    size = head + int.from_bytes(buffer[head : head + 4], "big")
    return size if len(buffer) >= size else None
