"""Framing: messages cut anywhere, lengths that can't be, links that end or stay silent."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import LinkLost, ProtocolViolation
from shardproxy.protocol import messages as pg
from shardproxy.protocol.wire import HIGH_WATER, MAX_FRAME, MAX_STARTUP, Wire, connect

FRAMES = [pg.query("SELECT 1"), pg.SYNC_FRAME, pg.parse("", "x" * 300), pg.SYNC_FRAME]


@given(st.lists(st.integers(1, 400), max_size=20))
def test_cut_anywhere(sizes: list[int]) -> None:
    wire, data, found = Wire(), b"".join(FRAMES), list[bytes]()
    for size in [*sizes, len(data)]:
        wire.data_received(data[:size])
        data = data[size:]
        found += wire.frames_nowait()
    assert found == FRAMES
    assert not wire.has_unread


@pytest.mark.parametrize("length", [0, 3, (1 << 16) + 1, 1 << 30, 0xFFFFFFFF])
async def test_impossible_lengths(length: int) -> None:
    data = b"Q" + length.to_bytes(4, "big") + b"rest"
    wire = Wire()
    wire.data_received(data)
    with pytest.raises(ProtocolViolation, match="impossible length"):
        wire.frames_nowait()
    with pytest.raises(ProtocolViolation, match="impossible length"):
        await wire.read_frame(1)


async def test_the_limit_grows_with_the_login() -> None:
    wire, big = Wire(), pg.query("x" * (1 << 17))
    wire.data_received(big)
    with pytest.raises(ProtocolViolation):
        wire.frames_nowait()
    wire.max_frame = MAX_FRAME
    assert await wire.read_frames(1) == [big]


@pytest.mark.parametrize("length", [0, 4, 7, MAX_STARTUP + 1, 0xFFFFFFFF])
async def test_startup_packets_of_impossible_length(length: int) -> None:
    wire = Wire()
    wire.data_received(length.to_bytes(4, "big") + bytes(64))
    with pytest.raises(ProtocolViolation):
        await wire.read_startup(1)


async def test_what_follows_stays() -> None:
    wire, packet = Wire(), pg.startup({"user": "a"})
    wire.data_received(packet + FRAMES[0] + FRAMES[1] + b"N")
    assert await wire.read_startup(1) == packet
    assert await wire.read_frame(1) == FRAMES[0]
    assert await wire.read_frames(1) == [FRAMES[1]]
    assert await wire.read_byte(1) == b"N"


@pytest.mark.parametrize("read", ["read_frames", "read_frame", "read_startup", "read_byte"])
async def test_silence_and_the_end(read: str) -> None:
    wire = Wire()
    with pytest.raises(LinkLost, match="no answer"):
        await getattr(wire, read)(0.01)
    wire.data_received(b"\0" if read != "read_byte" else b"")
    waiting = asyncio.create_task(getattr(wire, read)(30))
    await asyncio.sleep(0)
    wire.connection_lost(ConnectionResetError("reset by peer"))
    with pytest.raises(LinkLost, match="reset by peer"):
        await waiting
    with pytest.raises(LinkLost):
        await wire.drain()
    wire.write(b"dropped")


async def test_a_sender_is_held_back_while_nobody_reads() -> None:
    wires: list[Wire] = []
    server = await asyncio.get_running_loop().create_server(lambda: Wire(wires.append), "127.0.0.1", 0)
    client = await connect("127.0.0.1", server.sockets[0].getsockname()[1], 10)
    message = pg.frame(pg.QUERY, bytes(50_000))
    for _ in range(600):
        client.write(message)
    with pytest.raises(LinkLost, match="took nothing"):
        await client.drain(0.2)
    assert len(wires[0]._buffer) < HIGH_WATER + (1 << 20)
    read = 0
    while read < 600:
        read += len(await wires[0].read_frames(10))
    await client.drain(10)
    wires[0].abort()
    await client.wait_closed(10)
    assert client.closed
    server.close()
    await server.wait_closed()
