"""Streaming standbys."""

from __future__ import annotations

import asyncio
from pathlib import Path

from shardoperator.standalone.postgres.server import PostgresServer


async def standby_of(primary: PostgresServer, directory: Path) -> PostgresServer:
    """A running one, made with pg_basebackup."""
    standby = PostgresServer(directory, primary.binaries, dict(primary.settings), password=primary.password)
    await asyncio.to_thread(directory.mkdir)
    standby._own(directory)
    await standby._run(
        "pg_basebackup", "-D", str(standby.data), "-d", primary.dsn(), "-R", "-X", "stream", "-c", "fast", "--no-sync",
    )  # fmt: skip
    await standby.start()
    return standby
