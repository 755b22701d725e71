"""A call on a link that is too slow, or whose caller is cancelled, ends by dropping the link, and is never heard of again."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

from shardoperator.errors import ShardError
from shardoperator.shards.connect import Connection, limited


class Link:
    """A connection on which nothing is ever answered; a call on it fails once the link is dropped, as asyncpg's do."""

    def __init__(self) -> None:
        self.dropped = asyncio.Event()
        self.failed = asyncio.Event()

    def terminate(self) -> None:
        self.dropped.set()

    async def call(self) -> None:
        await self.dropped.wait()
        self.failed.set()
        raise ConnectionResetError("connection was closed in the middle of operation")

    async def ends(self, timeout: float) -> str:
        """How a call with this limit ends."""
        try:
            await limited(cast("Connection", self), self.call(), timeout)
        except ShardError as error:
            return str(error)
        except asyncio.CancelledError:
            return "cancelled"
        return "answered"


@pytest_asyncio.fixture(loop_scope="session")
async def heard() -> AsyncIterator[list[dict[str, Any]]]:
    """What asyncio would log."""
    loop, contexts = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    yield contexts
    loop.set_exception_handler(None)


@pytest.mark.parametrize(
    ("timeout", "end"), [(0.01, "no answer within 0.01 s; the link was dropped"), (60.0, "cancelled")], ids=["slow", "cancelled"]
)
async def test_a_link_without_an_answer(heard: list[dict[str, Any]], timeout: float, end: str) -> None:
    link = Link()
    task = asyncio.create_task(link.ends(timeout))
    await asyncio.wait({task}, timeout=0.1)
    task.cancel()
    assert await task == end
    await link.failed.wait()
    await asyncio.sleep(0)
    gc.collect()
    assert heard == []
