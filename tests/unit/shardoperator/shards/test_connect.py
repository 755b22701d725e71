"""Calls under a limit: whoever gives up leaves nothing behind that anybody would have to read."""

from __future__ import annotations

import asyncio
import gc
from typing import Any, cast

from shardoperator.shards.connect import Connection, limited


class Link:
    """Stands for a connection: a call on it fails when it is terminated, as asyncpg's do."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def terminate(self) -> None:
        self.ended.set_exception(ConnectionResetError("closed in the middle of operation"))


async def test_a_cancelled_call_is_not_complained_about() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    try:
        link = Link()
        call = asyncio.create_task(limited(cast("Connection", link), link.ended))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait({call})
        assert call.cancelled()
        del link, call
        await asyncio.sleep(0)
        gc.collect()
        assert complaints == []
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
