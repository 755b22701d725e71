"""Prepared transactions as a lost coordinator leaves them: made with the commit protocol's own messages, by the application's login."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from bench import PASSWORD
from shardoperator.standalone.postgres.server import PostgresServer
from shardproxy.twophase import records
from shardproxy.twophase.gid import Gid


@dataclass(frozen=True)
class Orphan:
    """One transaction over shards 0, 1, ..., which creates a table on each; shard 0 decides."""

    servers: Sequence[PostgresServer]
    database: str
    cluster: str
    txn: str

    def gid(self, shard: int) -> str:
        """Of one part."""
        return self._gid(shard).text

    def _gid(self, shard: int) -> Gid:
        return Gid(self.cluster, self.txn, 1, 1, 1, 0, shard)

    @property
    def table(self) -> str:
        """What it creates."""
        return f"made_{self.txn}"

    async def prepare(self, *, decided: bool = False) -> None:
        """On every shard; `decided`: and committed on shard 0."""
        for number, server in enumerate(self.servers):
            connection = await asyncpg.connect(server.dsn(self.database, "app", PASSWORD), timeout=10)
            try:
                await connection.execute(f"BEGIN; CREATE TABLE {self.table} (id int)")
                await connection.execute(records.prepare_message(self._gid(number), range(len(self.servers))))
                if decided and number == 0:
                    await connection.execute(records.commit_prepared(self.gid(0)))
            finally:
                await connection.close(timeout=5)

    async def exists(self) -> list[bool]:
        """Whether the table is there, by shard."""
        sql = f"SELECT to_regclass('public.{self.table}') IS NOT NULL"
        return [await server.psql(sql, self.database) == "t" for server in self.servers]

    async def left(self) -> list[int]:
        """Shards on which it is still prepared."""
        found = []
        for number, server in enumerate(self.servers):
            sql = f"SELECT count(*) FROM pg_prepared_xacts WHERE gid = '{self.gid(number)}'"
            if await server.psql(sql, self.database) != "0":
                found.append(number)
        return found


async def orphan(servers: Sequence[PostgresServer], database: str, cluster: str, *, decided: bool = False) -> Orphan:
    """A new one."""
    one = Orphan(servers, database, cluster, secrets.token_hex(16))
    await one.prepare(decided=decided)
    return one
