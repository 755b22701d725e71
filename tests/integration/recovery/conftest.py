"""Shards for recovery's tests: parts are made by hand, no proxy is needed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

import handmade
from bench import PASSWORD, Bench, Servers, bench


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def trio(servers: Servers) -> AsyncIterator[Bench]:
    """Three shards with a table, and a role that recovery may not become."""
    for server in servers.servers:
        await server.psql(f"DROP ROLE IF EXISTS mallory; CREATE ROLE mallory LOGIN PASSWORD '{PASSWORD}'")
    async with bench(servers, 3) as one:
        await one.on_shards(handmade.TABLE)
        yield one
