"""Last agent: the decision shard is not prepared, so that it alone knows whether its COMMIT got in.

The coordinator is killed at every message, or loses its link to the decision shard; the invariants hold, and the client is told the
truth.
"""

from __future__ import annotations

import asyncio
import itertools

import asyncpg
import pytest

import points
from arena import Arena, Attempt, Transaction, break_off, check, violations
from points import Point
from shardoperator.shards.application import Told
from shardoperator.standalone.demo.link import Direction, When
from work import automatic, reading, refused, transfer

ENDS = (When.BEFORE, When.AFTER)
BOTH = frozenset({0, 1})
DECIDE = points.LAST_AGENT.index(next(point for point in points.LAST_AGENT if point.name == "decide"))


def is_decided(point: Point, when: When) -> bool:
    """Whether the decision shard has got the whole of step 3 by then: it carries that out, whoever listens."""
    index = points.LAST_AGENT.index(point)
    return index > DECIDE or (index == DECIDE and when is When.AFTER)


async def killed(arena: Arena, transaction: Transaction, point: Point, when: When) -> None:
    foreign = await arena.foreign()
    attempt, hit = await break_off(arena, transaction, point, when)
    assert hit, f"{point} was never seen; the client was told {attempt}"
    left, found, decided = await arena.parts(), await arena.found(attempt), is_decided(point, when)
    assert bool(found) is decided, f"the kill missed {point}: the token is on {sorted(found)}"
    finished = point.name == "finished" or (point.name == "finish" and when is When.AFTER)
    assert sum(left) == (0 if finished or (point.name == "prepare" and when is When.BEFORE) else 1)
    await arena.recover(2)
    assert await check(arena, attempt, BOTH, foreign) == (BOTH if decided else frozenset())


@pytest.mark.parametrize("when", ENDS)
@pytest.mark.parametrize("point", points.LAST_AGENT, ids=str)
async def test_killed_at_every_message(last_two: Arena, point: Point, when: When) -> None:
    await killed(last_two, transfer(*last_two.keys), point, when)


@pytest.mark.parametrize("point", points.LAST_AGENT[2:6], ids=str)
async def test_killed_under_one_statement_over_all_shards(last_two: Arena, point: Point) -> None:
    await killed(last_two, automatic, point, When.BEFORE)


@pytest.mark.parametrize("when", ENDS)
@pytest.mark.parametrize(("point", "decided"), [(points.LAST_AGENT[DECIDE], None), (points.FINISH, True)], ids=str)
async def test_killed_over_three_shards(last_three: Arena, point: Point, decided: bool | None, when: When) -> None:
    foreign, everywhere = await last_three.foreign(), frozenset({0, 1, 2})
    attempt, hit = await break_off(last_three, transfer(*last_three.keys), point, when)
    assert hit
    decided = when is When.AFTER if decided is None else decided
    await last_three.recover(2)
    assert await check(last_three, attempt, everywhere, foreign) == (everywhere if decided else frozenset())


@pytest.mark.parametrize("when", ENDS)
async def test_killed_with_a_reader(last_three: Arena, when: When) -> None:
    foreign, keys = await last_three.foreign(), last_three.keys
    attempt, hit = await break_off(last_three, reading((keys[0], keys[2]), keys[1]), points.LAST_AGENT[DECIDE], when)
    assert hit
    await last_three.recover(2)
    wanted = frozenset({0, 2}) if when is When.AFTER else frozenset()
    assert await check(last_three, attempt, frozenset({0, 2}), foreign) == wanted


# --- the proxy lives, its link to a shard does not


async def _run(arena: Arena, transaction: Transaction) -> tuple[asyncpg.Connection, Attempt]:
    client, attempt = await arena.client(), Attempt()
    async with asyncio.timeout(40):
        await attempt.run(client, transaction)
    return client, attempt


async def _finished(arena: Arena) -> None:
    """By the proxy itself, without recovery."""
    async with asyncio.timeout(40):
        while any(await arena.parts()):
            await asyncio.sleep(0.02)


async def _usable(arena: Arena, client: asyncpg.Connection) -> None:
    for link in arena.bench.links:
        link.heal()
    again = Attempt()
    await again.run(client, transfer(*arena.keys))
    assert again.told is Told.COMMITTED, (again, arena.bench.log()[-2000:])
    assert await arena.found(again) == BOTH
    client.terminate()
    await arena.kill()


@pytest.mark.parametrize("when", list(When))
@pytest.mark.parametrize("point", points.LAST_AGENT[DECIDE:], ids=str)
async def test_a_link_that_is_cut_is_no_reason_for_a_doubt(last_two: Arena, point: Point, when: When) -> None:
    foreign = await last_two.foreign()
    (await last_two.start()).terminate()
    traps = point.traps(last_two.bench.links, when, cut=True)
    client, attempt = await _run(last_two, transfer(*last_two.keys))
    assert any(trap.hit.is_set() for trap in traps)
    await _finished(last_two)
    found, decided = await last_two.found(attempt), is_decided(point, when)
    assert found == (BOTH if decided else frozenset())
    assert (attempt.told, attempt.sqlstate) == ((Told.COMMITTED, "") if decided else (Told.FAILED, "40001")), attempt
    await _usable(last_two, client)
    await check(last_two, Attempt(), BOTH, foreign)


@pytest.mark.parametrize("when", ENDS)
async def test_a_link_that_falls_silent_at_the_decision(last_two: Arena, when: When) -> None:
    foreign = await last_two.foreign()
    (await last_two.start()).terminate()
    traps = points.LAST_AGENT[DECIDE].traps(last_two.bench.links, when)
    client, attempt = await _run(last_two, transfer(*last_two.keys))
    assert any(trap.hit.is_set() for trap in traps)
    assert (attempt.told, attempt.sqlstate) == (Told.NOTHING, "08007"), attempt
    for link in last_two.bench.links:
        link.heal()
    await _finished(last_two)
    found = await last_two.found(attempt)
    assert violations(attempt.told, BOTH, found) == []
    if when is When.AFTER:
        assert found == BOTH
    await _usable(last_two, client)
    await check(last_two, Attempt(), BOTH, foreign)


async def test_a_deferred_constraint_is_postgress_own_error_wherever_it_is(last_two: Arena) -> None:
    """The shard that refuses prepares in one transaction and decides in another."""
    foreign = await last_two.foreign()
    client = await last_two.start()
    for _ in range(12):
        attempt = Attempt()
        await attempt.run(client, refused(last_two.keys))
        assert (attempt.told, attempt.sqlstate) == (Told.FAILED, "23505"), attempt
        assert await last_two.found(attempt) == frozenset()
    await _usable(last_two, client)
    await check(last_two, Attempt(), BOTH, foreign)


async def test_the_decision_shard_needs_no_slot(last_two: Arena) -> None:
    """It is not prepared, so that a commit over two shards is seen as one prepared transaction at most."""
    client = await last_two.start()
    for link in last_two.bench.links:
        link.seen = []
    attempt = Attempt()
    await attempt.run(client, transfer(*last_two.keys))
    sent = [frame for link in last_two.bench.links for _, frame in link.seen or []]
    assert attempt.told is Told.COMMITTED
    assert sum(b"PREPARE TRANSACTION '" in frame for frame in sent) == 1
    assert sum(b"COMMIT PREPARED '" in frame for frame in sent) == 1
    for link in last_two.bench.links:
        link.seen = None
    client.terminate()
    await last_two.kill()


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("when", list(When))
async def test_every_single_frame(last_two: Arena, when: When, direction: Direction) -> None:
    """Not only at messages of the protocol: at each frame of either link, whatever it is."""
    foreign = await last_two.foreign()
    for shard in (0, 1):
        for nth in itertools.count(1):
            point = Point("frame", direction, lambda _: True, shard, nth)
            attempt, hit = await break_off(last_two, transfer(*last_two.keys), point, when)
            await last_two.recover(2)
            await check(last_two, attempt, BOTH, foreign)
            if not hit:
                assert nth > 10
                break
