"""Bytes that are no PostgreSQL: the client that sends them is cut off, others do not notice, and no server connection is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bench import PASSWORD, Bench
from programs import http, metric, sessions, until
from raw_client import SYNC, RawClient, bind, execute, frame, parse, query, startup, text


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def _others_do_not_notice(market: Bench) -> AsyncIterator[None]:
    """A client that was there before works on after it, and as many server connections are free as before."""
    other = await RawClient.login(market.listen.port, PASSWORD)
    assert (await other.query("SELECT 1")).rows == [("1",)]
    await other.query("BEGIN")
    await other.query("SELECT 1")
    yield
    assert (await other.query("SELECT 2")).rows == [("2",)]
    assert (await other.query("COMMIT")).tags == ["COMMIT"]

    async def alone() -> bool:
        return await metric(market, "pgshepherd_proxy_clients") == 1

    await until(alone)
    assert await sessions(market, "state <> 'idle'") == 0
    assert await sessions(market) <= 2 * 10, "the pools' size"
    assert "Traceback" not in market.log()
    assert "never retrieved" not in market.log()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\0\0\0\0",
        b"\0\0\0\4",
        struct.pack("!II", 7, 196608),
        struct.pack("!I", 0x7FFFFFFF) + b"x" * 64,
        struct.pack("!I", 0xFFFFFFFF),
        struct.pack("!II", 10001, 196608),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        struct.pack("!II", 12, 80877102) + b"\0\0\0\1",
        struct.pack("!II", 9, 196608) + b"\0",
        struct.pack("!II", 13, 196608) + b"user\0",
        struct.pack("!II", 12, 196608) + b"\xff\xff\xff\xff",
        startup({"user": "app", "database": "shop"}) + frame("p", b""),
        startup({"user": "app", "database": "shop"}) + frame("p", b"SCRAM-SHA-256\0"),
        startup({"user": "app", "database": "shop"}) + frame("p", b"PLAIN\0\0\0\0\1x"),
        startup({"user": "app", "database": "shop"}) + frame("p", b"SCRAM-SHA-256\0\0\0\0\1\xff"),
        startup({"user": "app", "database": "shop"}) + frame("p", b"SCRAM-SHA-256\0\0\0\0\x0bp=x,,n=,r=a"),
        startup({"user": "app", "database": "shop"}) + query("SELECT 1"),
        startup({"user": "app", "database": "shop"}) + b"p" + struct.pack("!I", 1 << 24),
        startup({"user": "app", "database": "shop"}) + b"p" + struct.pack("!I", 3),
        startup({"user": "a" * 9000, "database": "shop"}) + frame("p", b"SCRAM-SHA-256\0\0\0\0\x08n,,n=,r="),
    ],
)
async def test_before_the_login(market: Bench, data: bytes) -> None:
    client = await RawClient.connect(market.listen.port)
    client.send(data)
    if client.writer.can_write_eof():
        client.writer.write_eof()
    assert "Z" not in "".join(message.kind for message in await client.ended())


@pytest.mark.parametrize("length", [0, 7, 10001, 1 << 24, 0x7FFFFFFF, 0xFFFFFFFF])
async def test_impossible_lengths_are_not_waited_for(market: Bench, length: int) -> None:
    for head in (b"", startup({"user": "app", "database": "shop"}) + b"p"):
        client = await RawClient.connect(market.listen.port)
        client.send(head + struct.pack("!I", length + (1 << 16 if head and length == 10001 else 0)) + bytes(16))
        assert all(message.kind == "R" for message in await client.ended())


@pytest.mark.parametrize(
    "data",
    [
        b"Q" + struct.pack("!I", 3),
        b"Q" + struct.pack("!I", 0xFFFFFFFF),
        b"Q" + struct.pack("!I", 1 << 30),
        frame("Q", b"SELECT 1"),
        frame("Q", b"SELECT 1\0more\0"),
        frame("Q", b"SELECT '\xff'\0"),
        frame("P", b"\0"),
        frame("P", text("", "SELECT 1") + b"\0\5\0\0"),
        frame("P", text("", "SELECT 1") + b"\xff\xff"),
        frame("B", text("", "") + b"\0\0\0\1\x7f\xff\xff\xff"),
        frame("B", text("", "") + b"\0\1\0\7\0\0\0\0"),
        frame("D", b"X\0"),
        frame("C", b""),
        frame("E", text("p")),
        frame("S", b"more"),
        frame("?", b""),
        frame("v", b"\0" * 8),
        frame("p", b"SCRAM-SHA-256\0"),
        b"\0" * 64,
        b"\xff" * 64,
    ],
)
async def test_after_the_login(market: Bench, data: bytes) -> None:
    """In a transaction, which must be rolled back."""
    client = await RawClient.login(market.listen.port, PASSWORD)
    await client.query("BEGIN")
    assert (await client.query("SELECT * FROM accounts WHERE customer_id = 1")).sqlstate == ""
    client.send(data)
    if client.writer.can_write_eof():
        client.writer.write_eof()
    said = await client.ended()
    assert not said or said[0].fields["C"] in ("08P01", "22021")


async def test_random_bytes(market: Bench) -> None:
    rng = random.Random(3)
    for _ in range(60):
        client = await RawClient.connect(market.listen.port)
        client.send(rng.randbytes(rng.choice([1, 8, 80, 800, 80_000])))
        client.vanish() if rng.random() < 0.3 else client.writer.write_eof()
        await client.ended()
    for _ in range(30):
        client = await RawClient.login(market.listen.port, PASSWORD)
        kind = rng.choice("QPBDECSHFdcfp")
        client.send(frame(kind, rng.randbytes(rng.choice([0, 1, 5, 50, 5000]))), SYNC, rng.randbytes(50))
        client.writer.write_eof()
        await client.ended()


async def test_broken_messages_in_the_middle_of_a_pipeline(market: Bench) -> None:
    good = parse("", "SELECT 1") + bind("", "") + execute() + SYNC
    for cut in range(1, len(good), 3):
        client = await RawClient.login(market.listen.port, PASSWORD)
        client.send(good, good[:cut])
        assert (await client.answer()).rows == [("1",)]
        client.vanish()


async def test_a_login_that_takes_for_ever(pair: Bench) -> None:
    """Byte by byte, or not at all: it ends after client_login_timeout, and many of them hold nobody up."""
    await pair.start_proxy({"client_login_timeout": 400})
    slow = [await RawClient.connect(pair.listen.port) for _ in range(40)]
    for number, client in enumerate(slow):
        client.send(startup({"user": "app", "database": "shop"})[: number % 30])
    good = await RawClient.login(pair.listen.port, PASSWORD)
    assert (await good.query("SELECT 1")).rows == [("1",)]
    asked = [await RawClient.connect(pair.listen.port) for _ in range(5)]
    for client in asked:
        client.send(startup({"user": "app", "database": "shop"}))
        assert (await client.message()).kind == "R"
    for client in (*slow, *asked):
        assert [message for message in await client.ended() if message.kind == "Z"] == []
    assert await sessions(pair) <= 1


async def test_a_client_that_does_not_read(market: Bench) -> None:
    """Its result waits for it; the proxy's memory does not grow with it, and other clients go on."""
    client = await RawClient.login(market.listen.port, PASSWORD)
    client.send(query("SELECT repeat('x', 1000) FROM generate_series(1, 200000)"))
    other = await RawClient.login(market.listen.port, PASSWORD)
    for _ in range(20):
        assert (await other.query("SELECT 1")).rows == [("1",)]
    assert market.proxy is not None

    async def resident() -> int:
        with open(f"/proc/{market.proxy.pid}/status") as status:  # type: ignore[union-attr]  # noqa: ASYNC230, PTH123
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    assert await resident() < 180_000
    client.vanish()
    await other.close()


async def test_the_pages_take_no_nonsense(market: Bench) -> None:
    for port in (market.listen.metrics_port, market.listen.health_port):
        for data in (b"\0" * 20_000, b"POST / HTTP/1.1\r\n\r\n", b"GET\r\n\r\n", b"\xff\xff\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                assert b"200 OK" not in await asyncio.wait_for(reader.read(), 10) or data.startswith(b"GET")
            writer.close()
        assert (await http(port, "/livez"))[0] == 200
