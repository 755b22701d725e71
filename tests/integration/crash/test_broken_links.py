"""The proxy lives, a link does not: cut at a message, cut in the middle of it, or silent.

The client is told COMMIT, an error, or 08007 with the transaction's id, and what it is told is true; the proxy stays usable; what
is unfinished is finished behind the client's back, without recovery.
"""

from __future__ import annotations

import asyncio
import re

import asyncpg
import pytest

import points
from arena import Arena, Attempt, Transaction, check, violations
from points import Point
from shardoperator.shards.application import Told
from shardoperator.standalone.demo.link import Trap, When
from work import automatic, refused, transfer

PREPARES = [point for point in points.UNDECIDED if (point.name, point.shard) in (("prepare", 0), ("prepared", 1))]
DECISION = [points.DECIDE, points.DECIDED, points.FINISH, points.FINISHED]


async def broken(arena: Arena, transaction: Transaction, traps: list[Trap]) -> tuple[asyncpg.Connection, Attempt]:
    """Run it into the traps, up to what the client is told."""
    client = await arena.client()
    attempt = Attempt()
    async with asyncio.timeout(30):
        await attempt.run(client, transaction)
    assert any(trap.hit.is_set() for trap in traps), "the message was never seen"
    return client, attempt


def assert_told(attempt: Attempt) -> None:
    """COMMIT, an error of a whole transaction, or 08007 with its id."""
    if attempt.told is Told.NOTHING:
        assert attempt.sqlstate in ("08007", "08006"), attempt
        if attempt.sqlstate == "08007":
            assert re.search(r"transaction resolution unknown: [0-9a-f]{32}", attempt.message)


async def finished(arena: Arena) -> None:
    """Until the proxy itself has finished what it began."""
    async with asyncio.timeout(30):
        while any(await arena.parts()):
            await asyncio.sleep(0.02)


async def usable(arena: Arena, client: asyncpg.Connection) -> None:
    """The same client and a new one commit over both shards."""
    for one in (client, await arena.client()):
        attempt = Attempt()
        await attempt.run(one, transfer(*arena.keys))
        assert attempt.told is Told.COMMITTED, (attempt, arena.bench.log()[-2000:])
        assert violations(attempt.told, frozenset({0, 1}), await arena.found(attempt)) == []
        await one.close()


async def cut(arena: Arena, transaction: Transaction, point: Point, when: When) -> Attempt:
    """One connection is cut at the message; everything else goes on."""
    foreign = await arena.foreign()
    (await arena.start()).terminate()
    client, attempt = await broken(arena, transaction, point.traps(arena.bench.links, when, cut=True))
    assert_told(attempt)
    await finished(arena)
    if attempt.sqlstate == "08006":
        attempt.told = Told.FAILED  # said only where nothing was committed
    found = await arena.found(attempt)
    for link in arena.bench.links:
        link.heal()
    await usable(arena, client)
    await arena.kill()
    assert violations(attempt.told, frozenset({0, 1}), found) == []
    await check(arena, Attempt(), frozenset({0, 1}), foreign)
    if point.name in ("decide", "decided", "finish", "finished"):
        assert attempt.told is Told.COMMITTED, "one lost connection to a shard that lives is no reason for a doubt"
        assert found == {0, 1}
    return attempt


@pytest.mark.parametrize("when", list(When))
@pytest.mark.parametrize("point", [*PREPARES, *DECISION], ids=str)
async def test_cut_at_a_message(two: Arena, point: Point, when: When) -> None:
    attempt = await cut(two, transfer(*two.keys), point, when)
    if point in PREPARES:
        assert attempt.told is Told.FAILED


@pytest.mark.parametrize("point", points.UNDECIDED[1:4], ids=str)
async def test_cut_at_a_statement(two: Arena, point: Point) -> None:
    attempt = await cut(two, transfer(*two.keys), point, When.AFTER)
    assert attempt.told is Told.FAILED


@pytest.mark.parametrize("when", list(When))
@pytest.mark.parametrize("point", [points.ROLL_BACK, points.ROLLED_BACK], ids=str)
async def test_cut_while_rolling_back(two: Arena, point: Point, when: When) -> None:
    attempt = await cut(two, refused(two.keys), point, when)
    assert (attempt.told, attempt.sqlstate) == (Told.FAILED, "23505")


@pytest.mark.parametrize("point", DECISION, ids=str)
async def test_cut_under_one_statement_over_all_shards(two: Arena, point: Point) -> None:
    await cut(two, automatic, point, When.BEFORE)


@pytest.mark.parametrize(
    ("point", "when"),
    [
        (PREPARES[0], When.BEFORE),
        (PREPARES[1], When.BEFORE),
        *((point, When.BEFORE) for point in DECISION),
        (DECISION[0], When.AFTER),
    ],
    ids=str,
)
async def test_a_link_that_falls_silent(two: Arena, point: Point, when: When) -> None:
    """Nothing is closed: only limits of time help, and none of them may send a cancel."""
    foreign = await two.foreign()
    (await two.start()).terminate()
    links = two.bench.links
    for link in links:
        link.seen = []
    client, attempt = await broken(two, transfer(*two.keys), point.traps(links, when))
    assert_told(attempt)
    wanted = {"prepare": Told.FAILED, "prepared": Told.FAILED, "decide": Told.NOTHING, "decided": Told.NOTHING}
    if attempt.sqlstate == "08006":
        attempt.told = Told.FAILED
    assert attempt.told is wanted.get(point.name, Told.COMMITTED)
    silent = next(number for number, link in enumerate(links) if not link.passing)
    await _other_shard_works(two, 1 - silent)
    for link in links:
        link.heal()
    if point in PREPARES:  # given up after some tries: a part whose shard could not be reached is recovery's
        await two.recover(2)
    await finished(two)
    found = await two.found(attempt)
    assert violations(attempt.told, frozenset({0, 1}), found) == []
    if point not in PREPARES:
        assert found == {0, 1}, "the proxy finishes what it has begun"
    assert not any(b"\x04\xd2\x16\x2e" in frame[:16] for link in links for _, frame in link.seen or []), "a CancelRequest"
    for link in links:
        link.seen = None
    await usable(two, client)
    await two.kill()
    await check(two, Attempt(), frozenset({0, 1}), foreign)


async def _other_shard_works(arena: Arena, shard: int) -> None:
    """Reading there: the written row may still be locked by the unfinished transaction."""
    async with asyncio.timeout(30):
        client = await arena.client()
        await client.fetch("SELECT token FROM accounts WHERE customer_id = $1", arena.keys[shard])
        await client.close()
