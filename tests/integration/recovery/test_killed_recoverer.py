"""A recoverer is killed in the middle of its work, at each message with which it changes something; another one completes it."""

from __future__ import annotations

import asyncio
import sys

import pytest

import points
from bench import PASSWORD, Bench
from handmade import Handmade
from points import Point
from shardoperator.standalone.children import die_with_parent
from shardoperator.standalone.demo.link import When, containing

ALL = (0, 1, 2)
ROLL_BACK = containing("ROLLBACK PREPARED", "Q")
COMMIT = containing("COMMIT PREPARED", "Q")
TOMBSTONE = containing("'abort'", "Q")

CASES = [
    ("between two commits", COMMIT, 2, True),
    ("after the right to abort was won", ROLL_BACK, 2, False),
    ("before it was won", ROLL_BACK, 1, False),
]


async def _killed(bench: Bench, point: Point, when: When) -> None:
    """`pgshepherd recover` over the links, killed at the message."""
    dsns = [f"--dsn=postgresql://recovery:{PASSWORD}@127.0.0.1:{link.port}/{bench.database}" for link in bench.links]
    traps = point.traps(bench.links, when)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shardoperator.cli.main", "recover", "--grace", "0s", *dsns,
        stdout=asyncio.subprocess.DEVNULL, preexec_fn=die_with_parent,
    )  # fmt: skip
    hits = [asyncio.create_task(trap.hit.wait()) for trap in traps]
    done, _ = await asyncio.wait(hits, return_when=asyncio.FIRST_COMPLETED, timeout=30)
    for hit in hits:
        hit.cancel()
    assert done, f"{point} was never seen"
    process.kill()
    await process.wait()
    for link in bench.links:
        link.cut()
        link.heal()


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
@pytest.mark.parametrize(("name", "matches", "nth", "committed"), CASES, ids=[case[0] for case in CASES])
async def test_another_one_completes(
    trio: Bench, name: str, matches: points.Matches, nth: int, committed: bool, when: When
) -> None:
    one = Handmade(trio, decision=1, participants=ALL)
    await one.prepare(*ALL)
    if committed:
        await one.commit(1)
    await _killed(trio, Point(name, points.TO_SERVER, matches, nth=nth), when)
    async with asyncio.timeout(30):
        while await trio.prepared():
            await trio.recovery().run_pass()
    assert await one.outcome() == ["committed" if committed else "gone"] * 3


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
async def test_killed_at_the_tombstone(trio: Bench, when: When) -> None:
    one = Handmade(trio, decision=1, participants=ALL)
    await one.prepare(0, 2)
    await _killed(trio, Point("tombstone", points.TO_SERVER, TOMBSTONE), when)
    async with asyncio.timeout(30):
        while await trio.prepared():
            await trio.recovery().run_pass()
    assert await one.outcome() == ["gone"] * 3
    assert (await one.records())[1] == "abort|recovery"
