"""A streaming standby that can be promoted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from shardoperator.standalone.postgres.server import PostgresServer


@dataclass
class Standby(PostgresServer):
    """Follows a primary, asynchronously, through whatever listens on `port`."""

    async def follow(self, primary: PostgresServer, port: int) -> None:
        """Copy the primary and stream from it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._own(self.directory)
        self.password = primary.password
        where = f"host=127.0.0.1 port={port} user={primary.superuser} password={primary.password}"
        await self._run("pg_basebackup", "-D", str(self.data), "-d", where, "-X", "stream", "-c", "fast", "-R", "--no-sync")
        self._own_tree(self.data)
        await self.start()

    async def caught_up(self, primary: PostgresServer) -> None:
        """Until it has replayed all that the primary has written by now."""
        position = await primary.psql("SELECT pg_current_wal_flush_lsn()")
        async with asyncio.timeout(30):
            while await self.psql(f"SELECT pg_last_wal_replay_lsn() >= '{position}'") != "t":
                await asyncio.sleep(0.02)

    async def promote(self) -> None:
        """Make it the primary."""
        await self.psql("SELECT pg_promote(true, 30)")
