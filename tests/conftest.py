"""Fixtures that all tests share: real PostgreSQL servers, and a sharded cluster on them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from bench import Bench, Servers, bench


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def servers() -> AsyncIterator[Servers]:
    """Three servers for the whole run."""
    running = await Servers.start(3)
    yield running
    await running.close()


@pytest_asyncio.fixture(loop_scope="session")
async def pair(servers: Servers) -> AsyncIterator[Bench]:
    """Two adopted shards, without a proxy."""
    async with bench(servers, 2) as one:
        yield one


@pytest_asyncio.fixture(loop_scope="session")
async def shop(pair: Bench) -> AsyncIterator[Bench]:
    """Two adopted shards with a proxy and two tables."""
    await pair.start_proxy()
    client = await pair.client()
    await client.execute("CREATE TABLE accounts (customer_id bigint PRIMARY KEY, balance bigint NOT NULL)")
    await client.execute("CREATE TABLE rates (name text PRIMARY KEY, rate int NOT NULL)")
    await client.close()
    yield pair
