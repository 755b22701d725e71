"""The two moments at which the demo kills the coordinator, found in the stream to the servers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

from shardoperator.standalone.demo.link import Direction, FaultLink, When
from shardproxy.twophase.gid import parse

_COMMIT = re.compile(rb"COMMIT PREPARED '([^']+)'")


def commit_of(*, decision: bool) -> Callable[[bytes], bool]:
    """COMMIT PREPARED of the decision shard's part, or of another's."""

    def matches(frame: bytes) -> bool:
        found = _COMMIT.search(frame) if frame[:1] == b"Q" else None
        gid = parse(found[1].decode(errors="replace")) if found is not None else None
        return gid is not None and gid.is_decision == decision

    return matches


async def stopped_at(links: Sequence[FaultLink], matches: Callable[[bytes], bool], timeout: float) -> None:
    """Until some link has stopped before such a message; raises TimeoutError if none does within `timeout` seconds."""
    traps = [link.trap(Direction.TO_SERVER, matches, When.BEFORE) for link in links]
    waits = [asyncio.create_task(trap.hit.wait()) for trap in traps]
    try:
        done, _ = await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise TimeoutError("no link saw the message")
    finally:
        for wait in waits:
            wait.cancel()
