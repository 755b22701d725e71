"""A PostgreSQL client that says exactly what a test tells it to: for what no driver would send."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from scramp import ScramClient

LIMIT = 15.0
"""Seconds for one message to come: generous, a test that hangs must end."""


@dataclass(frozen=True)
class Message:
    """One message of the server's."""

    kind: str
    body: bytes

    @property
    def fields(self) -> dict[str, str]:
        """Of an ErrorResponse or NoticeResponse, by letter."""
        return {part[:1].decode(): part[1:].decode() for part in self.body.split(b"\0") if part}

    @property
    def text(self) -> str:
        """A body that is one string: the tag of a CommandComplete."""
        return self.body.rstrip(b"\0").decode()

    @property
    def row(self) -> tuple[str | None, ...]:
        """A DataRow in text format."""
        values, at = [], 2
        for _ in range(int.from_bytes(self.body[:2], "big")):
            size = int.from_bytes(self.body[at : at + 4], "big", signed=True)
            values.append(None if size < 0 else self.body[at + 4 : at + 4 + size].decode())
            at += 4 + max(0, size)
        return tuple(values)


@dataclass(frozen=True)
class Answer:
    """Everything up to one ReadyForQuery."""

    messages: list[Message]

    @property
    def kinds(self) -> str:
        """The types in order."""
        return "".join(message.kind for message in self.messages)

    @property
    def rows(self) -> list[tuple[str | None, ...]]:
        return [message.row for message in self.messages if message.kind == "D"]

    @property
    def tags(self) -> list[str]:
        return [message.text for message in self.messages if message.kind == "C"]

    @property
    def error(self) -> dict[str, str]:
        """Of the first ErrorResponse; empty if there is none."""
        return next((message.fields for message in self.messages if message.kind == "E"), {})

    @property
    def sqlstate(self) -> str:
        return self.error.get("C", "")

    @property
    def warnings(self) -> list[str]:
        return [message.fields["C"] for message in self.messages if message.kind == "N"]

    @property
    def status(self) -> str:
        """Of the ReadyForQuery."""
        return self.messages[-1].body.decode()


def frame(kind: str, body: bytes = b"") -> bytes:
    return kind.encode() + struct.pack("!I", len(body) + 4) + body


def text(*values: str) -> bytes:
    return b"".join(value.encode() + b"\0" for value in values)


def query(sql: str) -> bytes:
    return frame("Q", text(sql))


def parse(name: str, sql: str, *oids: int) -> bytes:
    return frame("P", text(name, sql) + struct.pack(f"!H{len(oids)}I", len(oids), *oids))


def bind(portal: str, statement: str, *values: bytes | None, binary: bool = False) -> bytes:
    sent = b"".join(struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value for value in values)
    formats = struct.pack("!HH", 1, 1) if binary else struct.pack("!H", 0)
    return frame("B", text(portal, statement) + formats + struct.pack("!H", len(values)) + sent + struct.pack("!H", 0))


def execute(portal: str = "", rows: int = 0) -> bytes:
    return frame("E", text(portal) + struct.pack("!I", rows))


def describe(kind: str, name: str = "") -> bytes:
    return frame("D", kind.encode() + text(name))


def one(sql: str, *values: bytes | None, binary: bool = False) -> bytes:
    """Parse, Bind, Execute of the unnamed statement."""
    return parse("", sql) + bind("", "", *values, binary=binary) + execute()


SYNC, FLUSH, TERMINATE = frame("S"), frame("H"), frame("X")


def startup(parameters: Mapping[str, str], version: int = 196608) -> bytes:
    body = struct.pack("!I", version) + b"".join(text(name, value) for name, value in parameters.items()) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


class RawClient:
    """One connection; all of them are closed at the end of the test."""

    opened: ClassVar[list[RawClient]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.parameters: dict[str, str] = {}
        self.key = (0, 0)
        self.opened.append(self)

    @classmethod
    async def close_all(cls) -> None:
        """Those that a test left open too."""
        while cls.opened:
            client = cls.opened.pop()
            client.vanish()
            await asyncio.wait([asyncio.ensure_future(client.writer.wait_closed())], timeout=LIMIT)

    @classmethod
    async def connect(cls, port: int) -> Self:
        async with asyncio.timeout(LIMIT):
            return cls(*await asyncio.open_connection("127.0.0.1", port))

    @classmethod
    async def login(cls, port: int, password: str, user: str = "app", database: str = "shop", **settings: str) -> Self:
        """Raises AssertionError where the server refuses."""
        client = await cls.connect(port)
        client.send(startup({"user": user, "database": database, **settings}))
        answer = await client.authenticate(user, password)
        assert answer.status == "I", answer.error
        return client

    async def authenticate(self, user: str, password: str) -> Answer:
        """Everything after the exchange, up to ReadyForQuery or the error that ends it."""
        messages = [await self.message()]
        while messages[-1].kind in "v":
            messages.append(await self.message())
        if messages[-1].kind != "R":
            return Answer(messages)
        scram = ScramClient(["SCRAM-SHA-256"], user, password)
        first = scram.get_client_first().encode()
        self.send(frame("p", text("SCRAM-SHA-256") + struct.pack("!I", len(first)) + first))
        offered = await self.message()
        scram.set_server_first(offered.body[4:].decode())
        self.send(frame("p", scram.get_client_final().encode()))
        while messages[-1].kind not in "ZE":
            messages.append(await self.message())
            self._note(messages[-1])
        return Answer(messages)

    def _note(self, message: Message) -> None:
        if message.kind == "S":
            name, value = message.body.split(b"\0")[:2]
            self.parameters[name.decode()] = value.decode()
        elif message.kind == "K":
            self.key = struct.unpack("!II", message.body)

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def message(self) -> Message:
        """Raises IncompleteReadError (or ConnectionError) at the end of the connection."""
        async with asyncio.timeout(LIMIT):
            head = await self.reader.readexactly(5)
            return Message(chr(head[0]), await self.reader.readexactly(int.from_bytes(head[1:], "big") - 4))

    async def answer(self) -> Answer:
        messages = [await self.message()]
        while messages[-1].kind != "Z":
            messages.append(await self.message())
        return Answer(messages)

    async def ask(self, *data: bytes) -> Answer:
        self.send(*data)
        return await self.answer()

    async def query(self, sql: str) -> Answer:
        return await self.ask(query(sql))

    async def cancel(self, port: int) -> None:
        """Asks for a cancel of what runs here, and waits until the request was taken."""
        await send_cancel(port, *self.key)

    async def ended(self) -> list[Message]:
        """What is still said until the other side closes."""
        messages = []
        try:
            while True:
                messages.append(await self.message())
        except (asyncio.IncompleteReadError, ConnectionError):
            return messages

    def vanish(self) -> None:
        """As a client whose process was killed."""
        self.writer.transport.abort()

    async def close(self) -> None:
        """Says goodbye, and waits until the other side has closed."""
        self.send(TERMINATE)
        await self.ended()


async def send_cancel(port: int, pid: int, secret: int) -> None:
    client = await RawClient.connect(port)
    client.send(struct.pack("!IIII", 16, 80877102, pid, secret))
    assert not await client.ended()
