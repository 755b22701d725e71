"""Pools: who is served when, and that nobody who gives up, or fails, takes a place with him."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from shardproxy.backend import pool as pools
from shardproxy.backend.cluster import SlotBudget, Slots
from shardproxy.backend.connection import Credentials, ServerConnection, ShardAddress
from shardproxy.backend.pool import Pool, PoolLimits
from shardproxy.errors import SqlError
from shardproxy.protocol.wire import Wire

ADDRESS = ShardAddress(0, 0, "127.0.0.1", 1, "shop")


class Opener:
    """Makes connections that lead nowhere."""

    def __init__(self) -> None:
        self.opened: list[ServerConnection] = []
        self.failing = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(
        self, address: ShardAddress, credentials: Credentials, settings: Mapping[str, str], timeout: float
    ) -> ServerConnection:
        await self.gate.wait()
        if self.failing:
            raise SqlError("08001", "could not connect")
        connection = ServerConnection(Wire(), address, credentials.user, {}, (1, 2))
        connection.settings = frozenset(settings.items())
        self.opened.append(connection)
        return connection


@pytest.fixture
def opener(monkeypatch: pytest.MonkeyPatch) -> Opener:
    one = Opener()
    monkeypatch.setattr(pools, "open_connection", one)
    return one


def pool(size: int = 1, timeout: float = 20.0) -> Pool:
    return Pool(ADDRESS, Credentials("app", "secret"), PoolLimits(size=size, checkout_timeout=timeout))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_waiters_are_served_in_order(opener: Opener) -> None:
    one, served = pool(), list[int]()
    first = await one.acquire({})

    async def client(number: int) -> None:
        connection = await one.acquire({})
        served.append(number)
        await asyncio.sleep(0)
        one.release(connection)

    tasks = []
    for number in range(8):
        tasks.append(asyncio.create_task(client(number)))
        await settle()
    one.release(first)
    await asyncio.gather(*tasks)
    assert served == list(range(8))
    assert len(opener.opened) == 1


@pytest.mark.parametrize("released_first", [True, False])
async def test_a_waiter_that_is_cancelled_loses_no_place(opener: Opener, released_first: bool) -> None:
    """Also if it was just about to be served."""
    one = pool(2)
    for _ in range(20):
        held = [await one.acquire({}) for _ in range(2)]
        waiters = [asyncio.create_task(one.acquire({})) for _ in range(3)]
        await settle()
        if released_first:
            one.release(held.pop())
        waiters[0].cancel()
        await asyncio.wait({waiters[0]})
        for connection in held:
            one.release(connection)
        for waiter in waiters:
            try:
                one.release(await waiter)
            except asyncio.CancelledError:
                continue
    assert one.open <= 2
    async with asyncio.timeout(5):
        assert len({await one.acquire({}) for _ in range(2)}) == 2


async def test_a_connection_that_can_not_be_opened_loses_no_place(opener: Opener) -> None:
    one = pool()
    opener.failing = True
    for _ in range(3):
        with pytest.raises(SqlError, match="could not connect"):
            await one.acquire({})
    opener.failing = False
    opener.gate.clear()
    task = asyncio.create_task(one.acquire({}))
    await settle()
    task.cancel()
    await asyncio.wait({task})
    opener.gate.set()
    assert (await one.acquire({})).owner == "app"


async def test_exhaustion(opener: Opener) -> None:
    one = pool(timeout=0.01)
    held = await one.acquire({})
    with pytest.raises(SqlError) as caught:
        await one.acquire({})
    assert (caught.value.sqlstate, caught.value.message) == ("53300", "no free connection to shard 0 within 0.01 s")
    one.release(held)
    assert await one.acquire({}) is held


async def test_only_those_with_the_same_settings_share(opener: Opener) -> None:
    one = pool(2)
    first = await one.acquire({"jit": "off"})
    one.release(first)
    second = await one.acquire({})
    assert second is not first
    one.release(second)
    assert await one.acquire({"jit": "off"}) is first
    third = await one.acquire({"jit": "on"})
    assert third not in (first, second)
    assert one.open == 2, "one of another kind made room"


@pytest.mark.parametrize("state", ["busy", "in a transaction", "failed", "being cancelled", "unread", "closed"])
async def test_what_is_not_clean_is_not_given_to_the_next(opener: Opener, state: str) -> None:
    one = pool()
    connection = await one.acquire({})
    match state:
        case "busy":
            connection.send(b"")
        case "in a transaction":
            connection.ready("T")
        case "failed":
            connection.ready("E")
        case "being cancelled":
            connection.cancels = 1
        case "unread":
            connection.wire.data_received(b"E\0\0\0\4")
        case _:
            connection.wire.closed = True
    one.release(connection)
    one.release(connection)
    assert one.open == 0
    assert await one.acquire({}) is not connection


async def test_what_the_server_says_to_an_idle_connection_ends_it(opener: Opener) -> None:
    one = pool()
    connection = await one.acquire({})
    one.release(connection)
    connection.wire.data_received(b"E\0\0\0\4")
    assert await one.acquire({}) is not connection


async def test_old_and_idle_ones_are_closed(opener: Opener) -> None:
    one = Pool(ADDRESS, Credentials("app", "secret"), PoolLimits(size=1, idle_timeout=0, lifetime=1000))
    connection = await one.acquire({})
    one.release(connection)
    connection.idle_since -= 1
    one.close_idle()
    assert one.open == 0
    connection = await one.acquire({})
    connection.opened_at -= 2000
    one.release(connection)
    assert await one.acquire({}) is not connection


async def test_slots_are_taken_together_or_not_at_all() -> None:
    slots = Slots({0, 1}, SlotBudget(size=1, timeout=0.01))
    await slots.acquire([1])
    with pytest.raises(SqlError) as caught:
        await slots.acquire([1, 0])
    assert caught.value.sqlstate == "53200"
    assert slots.used == {0: 0, 1: 1}
    await slots.acquire([0])
    slots.release([0, 1])
    patient = Slots({0, 1}, SlotBudget(size=1, timeout=20))
    await patient.acquire([0, 1])
    waiters = [asyncio.create_task(patient.acquire([1, 0])) for _ in range(2)]
    await settle()
    waiters[0].cancel()
    patient.release([0, 1])
    await waiters[1]
    assert patient.used == {0: 1, 1: 1}


async def _server() -> tuple[asyncio.Server, ShardAddress, list[bytes], asyncio.Event]:
    """Takes a CancelRequest and closes when the event is set."""
    taken: list[bytes] = []
    answer = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(await reader.read(16))
        await answer.wait()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    return server, ShardAddress(0, 0, "127.0.0.1", server.sockets[0].getsockname()[1], "shop"), taken, answer


async def test_a_cancel_holds_its_connection_until_the_server_took_it(opener: Opener) -> None:
    """Or it would hit whoever got the connection next."""
    server, address, taken, answer = await _server()
    one = Pool(address, Credentials("app", "secret"), PoolLimits(size=1))
    connection = await one.acquire({})
    connection.send(b"")
    task = asyncio.create_task(connection.cancel(connection.busy_since, 10))
    async with asyncio.timeout(10):
        while not taken:
            await asyncio.sleep(0.001)
        waiting = asyncio.create_task(connection.unharmed(10))
        await settle()
        assert not waiting.done()
        connection.ready("I")
        one.release(connection)
        assert await one.acquire({}) is not connection
        answer.set()
        assert await task
        await waiting
    assert (connection.cancels, taken[0][8:]) == (0, b"\0\0\0\1\0\0\0\2")
    server.close()


async def test_a_cancel_that_comes_too_late_is_not_sent(opener: Opener) -> None:
    server, address, taken, answer = await _server()
    answer.set()
    connection = await opener(address, Credentials("app", "secret"), {}, 1)
    connection.send(b"")
    since = connection.busy_since
    connection.ready("I")
    assert not await connection.cancel(since, 10)
    connection.send(b"")
    connection.busy_since = (since or 0) + 1
    assert not await connection.cancel(since, 10)
    server.close()
    assert not [data for data in taken if data]
    unreachable = await opener(ADDRESS, Credentials("app", "secret"), {}, 1)
    unreachable.send(b"")
    assert not await unreachable.cancel(unreachable.busy_since, 10)
