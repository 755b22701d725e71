"""The coordinator is killed before, in the middle of and after every message of the commit protocol, in both directions.

Then two recoverers run at once on the real servers, and the invariants of docs/commit-protocol.md must hold (`arena.check`).
What the shards show between the kill and the recovery proves that the kill hit the message that was meant.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

import points
from arena import Arena, Attempt, Transaction, break_off, check
from points import Point, decided_after
from shardoperator.standalone.demo.link import Direction, When
from work import automatic, reading, refused, transfer

ENDS = (When.BEFORE, When.AFTER)


async def killed(arena: Arena, transaction: Transaction, point: Point, when: When, participants: Sequence[int]) -> Attempt:
    """One kill, what it left, recovery, the invariants."""
    foreign = await arena.foreign()
    attempt, hit = await break_off(arena, transaction, point, when)
    assert hit, f"{point} was never seen; the client was told {attempt}"
    left, found = await arena.parts(), await arena.found(attempt)
    decided = decided_after(point, when)
    assert bool(found) is decided, f"the kill missed {point}: the token is on {sorted(found)}"
    assert_left(point, when, left, len(participants))
    await arena.recover(2)
    assert await check(arena, attempt, frozenset(participants), foreign) == frozenset(participants if decided else ())
    return attempt


def assert_left(point: Point, when: When, left: list[int], participants: int) -> None:
    """How many parts the kill leaves prepared, and where."""
    name, sent = point.name, when is When.AFTER
    victim = left[point.shard] if point.shard is not None else None
    match name:
        case "begin" | "begun" | "statement" | "stated":
            assert left == [0] * len(left), point
        case "prepare":
            assert victim == sent, point
        case "recorded" | "prepared":
            assert victim == 1, point
        case "close-reader" | "closed-reader" | "decide" if name != "decide" or not sent:
            assert sum(left) == participants, point
        case "decide" | "decided":
            assert sum(left) == participants - 1, point
        case "finish" | "finish-last" if participants == 2:
            assert sum(left) == (0 if sent else 1), point
        case "finished" | "finished-last" if participants == 2:
            assert sum(left) == 0, point
        case "finish" | "finished" | "finish-last" | "finished-last":
            assert sum(left) < participants, point
        case "roll-back":
            assert sum(left) == (0 if sent else 1), point
        case "rolled-back":
            assert sum(left) == 0, point
        case _:
            raise AssertionError(name)


@pytest.mark.parametrize("when", ENDS)
@pytest.mark.parametrize("point", [*points.UNDECIDED, points.DECIDE, points.DECIDED, points.FINISH, points.FINISHED], ids=str)
async def test_a_transaction_over_two_shards(two: Arena, point: Point, when: When) -> None:
    await killed(two, transfer(*two.keys), point, when, (0, 1))


@pytest.mark.parametrize("when", ENDS)
@pytest.mark.parametrize("point", [points.READER_CLOSES, points.READER_CLOSED, points.DECIDE, points.FINISH], ids=str)
async def test_a_transaction_with_a_reader(three: Arena, point: Point, when: When) -> None:
    await killed(three, reading((three.keys[0], three.keys[2]), three.keys[1]), point, when, (0, 2))


@pytest.mark.parametrize("when", ENDS)
@pytest.mark.parametrize(
    "point",
    [points.DECIDE, points.DECIDED, points.FINISH, points.FINISHED, points.FINISH_LAST, points.FINISHED_LAST],
    ids=str,
)
async def test_a_transaction_over_three_shards(three: Arena, point: Point, when: When) -> None:
    await killed(three, transfer(*three.keys), point, when, (0, 1, 2))


@pytest.mark.parametrize("when", ENDS)
@pytest.mark.parametrize(
    "point",
    [*points.UNDECIDED[4:9:2], points.DECIDE, points.DECIDED, points.FINISH, points.FINISHED],
    ids=str,
)
async def test_one_statement_over_all_shards(two: Arena, point: Point, when: When) -> None:
    await killed(two, automatic, point, when, (0, 1))


@pytest.mark.parametrize("when", ENDS)
@pytest.mark.parametrize("point", [points.ROLL_BACK, points.ROLLED_BACK], ids=str)
async def test_an_abort_because_one_shard_refuses_to_prepare(two: Arena, point: Point, when: When) -> None:
    await killed(two, refused(two.keys), point, when, (0, 1))


def _covered(direction: Direction, frame: bytes, known: Sequence[Point]) -> bool:
    return any(point.direction is direction and point.matches(frame) for point in known)


async def test_every_message_has_a_point(three: Arena) -> None:
    """What an undisturbed commit, a reader and an abort send and receive is all in the lists above."""
    client = await three.start()
    known = [
        *points.UNDECIDED, points.DECIDE, points.DECIDED, points.FINISH, points.READER_CLOSES, points.READER_CLOSED,
        points.ROLL_BACK, points.ROLLED_BACK,
    ]  # fmt: skip
    seen: list[tuple[Direction, bytes]] = []
    for link in three.bench.links:
        link.seen = seen
    for transaction in (transfer(*three.keys), reading(three.keys[:2], three.keys[2]), refused(three.keys)):
        await Attempt().run(client, transaction)
    for link in three.bench.links:
        link.seen = None
    messages = [(direction, frame) for direction, frame in seen if points.is_protocol(direction, frame)]
    others = {"INSERT INTO strict", "ROLLBACK\0", "SELECT 1"}
    without = [
        (direction, frame)
        for direction, frame in messages
        if not _covered(direction, frame, known) and not any(text.encode() in frame for text in others)
    ]
    assert without == []
    assert all(any(_covered(*message, [point]) for message in messages) for point in known), "a point that never comes"
    await three.kill()


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("when", list(When))
async def test_every_single_frame(two: Arena, when: When, direction: Direction) -> None:
    """Not only at messages of the protocol: at each frame of either link, whatever it is."""
    foreign = await two.foreign()
    for shard in (0, 1):
        for nth in itertools.count(1):
            point = Point("frame", direction, lambda _: True, shard, nth)
            attempt, hit = await break_off(two, transfer(*two.keys), point, when)
            await two.recover(2)
            await check(two, attempt, frozenset({0, 1}), foreign)
            if not hit:
                assert nth > 10
                break
