"""A cluster that many tests share: none of them changes the proxy or another's rows."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from bench import Bench, Servers, bench
from raw_client import RawClient

TABLES = """
CREATE TABLE accounts (customer_id bigint PRIMARY KEY, balance bigint NOT NULL, name text);
CREATE TABLE words (word varchar PRIMARY KEY, n int);
CREATE TABLE things (thing uuid PRIMARY KEY, n int);
CREATE TABLE rates (name text PRIMARY KEY, rate int NOT NULL);
"""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def market(servers: Servers) -> AsyncIterator[Bench]:
    """Two shards, a proxy, tables sharded by each type of key and an omnisharded one."""
    async with bench(servers, 2) as one:
        await one.start_proxy()
        client = await one.client()
        await client.execute(TABLES)
        await client.close()
        yield one


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _raw_clients() -> AsyncIterator[None]:
    yield
    await RawClient.close_all()


_next = itertools.count(1_000)


@pytest.fixture
def fresh() -> Callable[[int], list[int]]:
    """Keys that no other test has, alternately on shard 0 and shard 1."""
    from shardproxy.routing.hashing import shard_of

    def take(count: int) -> list[int]:
        keys: list[int] = []
        while len(keys) < count:
            key = next(_next)
            if shard_of("bigint", key, 2) == len(keys) % 2:
                keys.append(key)
        return keys

    return take
