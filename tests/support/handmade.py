"""Parts of cross-shard transactions made by hand, as a coordinator would have left them: for tests of recovery alone."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg

from bench import PASSWORD, Bench
from shardproxy.twophase import records
from shardproxy.twophase.gid import Gid

TABLE = "SET ROLE app; CREATE TABLE written (txn text NOT NULL); GRANT ALL ON written TO PUBLIC"


async def login(bench: Bench, shard: int, user: str = "app") -> asyncpg.Connection:
    """As an application's role, on the shard itself."""
    return await asyncpg.connect(bench.servers[shard].dsn(bench.database, user, PASSWORD), timeout=10)


@dataclass
class Handmade:
    """One transaction; `decision` is its decision shard."""

    bench: Bench
    decision: int = 0
    user: str = "app"
    txn: str = field(default_factory=lambda: secrets.token_hex(16))
    epoch: int = 1
    timeline: int = 1
    participants: Sequence[int] = (0, 1)

    def gid(self, shard: int) -> Gid:
        return Gid(self.bench.cluster_id, self.txn, self.epoch, self.timeline, self.timeline, self.decision, shard)

    async def prepare(self, *shards: int) -> None:
        """Step 1 on these shards."""
        for shard in shards:
            connection = await login(self.bench, shard, self.user)
            try:
                await connection.execute(f"BEGIN; INSERT INTO written VALUES ('{self.txn}')")
                await connection.execute(records.prepare_message(self.gid(shard), self.participants))
            finally:
                await connection.close()

    async def commit(self, *shards: int) -> None:
        """Steps 3 and 4 on these shards."""
        for shard in shards:
            connection = await login(self.bench, shard, self.user)
            await connection.execute(records.commit_prepared(self.gid(shard).text))
            await connection.close()

    async def outcome(self) -> list[str]:
        """On each shard: prepared, committed or gone."""
        found = []
        for server in self.bench.servers:
            gids = await server.psql(f"SELECT gid FROM pg_prepared_xacts WHERE gid LIKE '%{self.txn}%'", self.bench.database)
            rows = await server.psql(f"SELECT txn FROM written WHERE txn = '{self.txn}'", self.bench.database)
            found.append("prepared" if gids else "committed" if rows else "gone")
        return found

    async def records(self) -> list[str]:
        """On each shard: outcome and writer of the record."""
        return await self.bench.on_shards(f"SELECT outcome, who FROM pgshepherd.commit_record WHERE txn = '{self.txn}'")


def bad_crc(gid: Gid) -> str:
    """The same name with a wrong checksum."""
    return gid.text[:-1] + ("0" if gid.text[-1] != "0" else "1")
