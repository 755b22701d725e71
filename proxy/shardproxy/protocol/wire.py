"""A framed PostgreSQL connection, used on both hops: to clients and to servers.

A *frame* is one whole message as bytes: type byte, length, body.  Invariant: nobody waits for ever: when the link ends, every
reader and every waiting writer gets LinkLost.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import cast

from shardproxy.errors import LinkLost, ProtocolViolation

HIGH_WATER = 1 << 18
"""Bytes buffered towards the reader above which the sender is held back."""

MAX_FRAME = (1 << 30) - 1
"""PostgreSQL's own limit for one message."""

MAX_FRAME_BEFORE_LOGIN = 1 << 16
MAX_STARTUP = 10000
"""PostgreSQL's own limit for the first packet."""


class Wire(asyncio.Protocol):
    """One connection; reading is for one task at a time."""

    def __init__(self, on_connect: Callable[[Wire], None] | None = None) -> None:
        self.max_frame = MAX_FRAME_BEFORE_LOGIN
        self.closed = False
        self._on_connect = on_connect
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()
        self._paused = False
        self._reason = "closed by the other side"

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Turn Nagle's delay off, and tell the server that a client is there."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._on_connect is not None:
            self._on_connect(self)

    def data_received(self, data: bytes) -> None:
        """Buffer, and wake the reader."""
        self._buffer += data
        if self._reader is not None:
            self._wake()
        elif len(self._buffer) > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """A peer that will send no more is gone."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake everybody."""
        self.closed = True
        if exc is not None:
            self._reason = str(exc) or type(exc).__name__
        self._gone.set()
        self._writable.set()
        self._wake()

    def pause_writing(self) -> None:
        """The peer reads too slowly."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._writable.set()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # --- reading

    @property
    def has_unread(self) -> bool:
        """Whether the other side said something that nobody has read."""
        return bool(self._buffer)

    def frames_nowait(self) -> list[bytes]:
        """Every complete frame that is buffered; raises ProtocolViolation for a length that can't be."""
        buffer, frames, start, size = self._buffer, [], 0, len(self._buffer)
        while size - start >= 5:
            length = int.from_bytes(buffer[start + 1 : start + 5], "big")
            if length < 4 or length > self.max_frame:
                raise ProtocolViolation(f"message {buffer[start : start + 1]!r} with an impossible length of {length} bytes")
            end = start + 1 + length
            if end > size:
                break
            frames.append(bytes(buffer[start:end]))
            start = end
        if start:
            del buffer[:start]
        return frames

    async def read_frames(self, timeout: float | None = None) -> list[bytes]:
        """At least one complete frame, and all that are there.

        Raises LinkLost when the link has ended or nothing complete came within `timeout` seconds.
        """
        frames = self.frames_nowait()
        if frames:
            return frames
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while not frames:
            await self._more(None if deadline is None else deadline - loop.time())
            frames = self.frames_nowait()
        return frames

    async def read_frame(self, timeout: float | None = None) -> bytes:
        """Exactly one frame; what follows stays buffered."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            if len(self._buffer) >= 5:
                length = int.from_bytes(self._buffer[1:5], "big")
                if length < 4 or length > self.max_frame:
                    raise ProtocolViolation(f"message {bytes(self._buffer[:1])!r} with an impossible length of {length} bytes")
                if len(self._buffer) > length:
                    return self._cut(length + 1)
            await self._more(None if deadline is None else deadline - loop.time())

    async def read_startup(self, timeout: float) -> bytes:
        """The untyped first packet: its length and its body."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            if len(self._buffer) >= 4:
                length = int.from_bytes(self._buffer[:4], "big")
                if length < 8 or length > MAX_STARTUP:
                    raise ProtocolViolation(f"a startup packet with an impossible length of {length} bytes")
                if len(self._buffer) >= length:
                    return self._cut(length)
            await self._more(deadline - loop.time())

    async def read_byte(self, timeout: float) -> bytes:
        """One byte: the answer to an SSLRequest."""
        while not self._buffer:
            await self._more(timeout)
        return self._cut(1)

    def _cut(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _more(self, timeout: float | None) -> None:
        if self.closed:
            raise LinkLost(self._reason)
        if timeout is not None and timeout <= 0:
            raise LinkLost("no answer in time")
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        self._reader = asyncio.get_running_loop().create_future()
        try:
            if timeout is None:
                await self._reader
            else:
                async with asyncio.timeout(timeout):
                    await self._reader
        except TimeoutError:
            raise LinkLost(f"no answer within {timeout:.3g} s") from None
        finally:
            self._reader = None

    # --- writing

    def write(self, data: bytes) -> None:
        """Send; silently dropped when the link has ended (the next read says so)."""
        if self._transport is not None and not self.closed:
            self._transport.write(data)

    def writelines(self, chunks: Iterable[bytes]) -> None:
        """Send several frames in one go."""
        self.write(b"".join(chunks))

    async def drain(self, timeout: float | None = None) -> None:
        """Wait until the peer has taken most of what was written; raises LinkLost if it never does."""
        if self.closed:
            raise LinkLost(self._reason)
        if self._writable.is_set():
            return
        try:
            async with asyncio.timeout(timeout):
                await self._writable.wait()
        except TimeoutError:
            raise LinkLost(f"the other side took nothing for {timeout:g} s") from None
        if self.closed:
            raise LinkLost(self._reason)

    @property
    def peer(self) -> str:
        """Address of the other side, for logs."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return f"{name[0]}:{name[1]}" if name else "unknown"

    def close(self) -> None:
        """Send what is buffered, then close."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, without sending what is buffered."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self, timeout: float) -> None:
        """Until the link has ended, or raise LinkLost after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._gone.wait()
        except TimeoutError:
            raise LinkLost(f"still open after {timeout:g} s") from None


_NOTICE_A_DEAD_SERVER = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25000}
"""Options, where the system has them, that end a wait without a limit of its own when the server's host is gone."""


async def connect(host: str, port: int, timeout: float) -> Wire:
    """Open a TCP connection; raises OSError or TimeoutError."""
    async with asyncio.timeout(timeout):
        transport, wire = await asyncio.get_running_loop().create_connection(Wire, host, port)
    sock = transport.get_extra_info("socket")
    for name, value in _NOTICE_A_DEAD_SERVER.items():
        if sock is not None and hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return wire
