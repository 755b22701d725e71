"""Servers of these tests' own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from yard import Site, Yard


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def yard() -> AsyncIterator[Yard]:
    """Two servers as they come."""
    running = await Yard.start()
    yield running
    await running.close()


@pytest_asyncio.fixture(loop_scope="session")
async def site(yard: Yard, tmp_path: Path) -> Site:
    """Fresh databases on servers that allow prepared transactions."""
    await yard.enable()
    return await yard.site(tmp_path)
