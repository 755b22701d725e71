"""Arenas: shards that many broken-off transactions share, each of them with a proxy of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from arena import Arena
from bench import Servers, bench
from warm import Warm


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def warm() -> AsyncIterator[Warm]:
    """What proxies are forked from."""
    running = await Warm.start()
    yield running
    await running.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two(servers: Servers, warm: Warm) -> AsyncIterator[Arena]:
    """Two shards."""
    async with bench(servers, 2) as one:
        arena = await Arena.build(one, warm, prepare_timeout=1500, resolution_timeout=1200, finish_timeout=600)
        await arena.plant_foreign(0)
        try:
            yield arena
        finally:
            await arena.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def three(servers: Servers, warm: Warm) -> AsyncIterator[Arena]:
    """Three shards."""
    async with bench(servers, 3) as one:
        arena = await Arena.build(one, warm, prepare_timeout=1500, resolution_timeout=1200, finish_timeout=600)
        await arena.plant_foreign(1, ["citus_0_1234_5_7"])  # a name may be prepared once on a server
        try:
            yield arena
        finally:
            await arena.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def last_two(servers: Servers, warm: Warm) -> AsyncIterator[Arena]:
    """Two shards, and last agent."""
    async with bench(servers, 2) as one:
        one.standbys = "none"
        arena = await Arena.build(one, warm, last_agent=True, prepare_timeout=1500, resolution_timeout=4000, finish_timeout=600)
        await arena.plant_foreign(0)
        try:
            yield arena
        finally:
            await arena.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def last_three(servers: Servers, warm: Warm) -> AsyncIterator[Arena]:
    """Three shards, and last agent."""
    async with bench(servers, 3) as one:
        one.standbys = "synchronous"
        arena = await Arena.build(one, warm, last_agent=True)
        try:
            yield arena
        finally:
            await arena.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def patient(servers: Servers, warm: Warm) -> AsyncIterator[Arena]:
    """Two shards, and a proxy that gives up late: for coordinators that are frozen for a while."""
    async with bench(servers, 2) as one:
        arena = await Arena.build(one, warm)
        try:
            yield arena
        finally:
            await arena.close()
