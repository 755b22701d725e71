"""PostgreSQL's own satisfies_hash_partition is the oracle of the sharding function, for N = 2 to 64."""

from __future__ import annotations

import random
from uuid import UUID

import asyncpg
import pytest

from bench import Servers
from shardproxy.routing.hashing import Key, shard_of

TYPES = {"bigint": "bigint", "varchar": "text", "uuid": "uuid"}


def _values(data_type: str, source: random.Random) -> list[Key]:
    match data_type:
        case "bigint":
            return [source.choice((1, -1)) * source.getrandbits(source.randint(1, 63)) for _ in range(100)]
        case "uuid":
            return [UUID(int=source.getrandbits(128)) for _ in range(60)]
        case _:
            letters = "abcdefghij ÄÖßé日本語😀'\"\\"
            return ["".join(source.choices(letters, k=length)) for length in range(40) for _ in range(2)]


@pytest.mark.parametrize("data_type", TYPES)
async def test_oracle(servers: Servers, data_type: str) -> None:
    connection = await asyncpg.connect(servers.servers[0].dsn())
    seed = random.randrange(2**32)
    try:
        sql_type = TYPES[data_type]
        await connection.execute(f"CREATE TEMP TABLE oracle (k {sql_type}) PARTITION BY HASH (k)")
        values = _values(data_type, random.Random(seed))
        for n in range(2, 65):
            rows = await connection.fetch(
                f"SELECT satisfies_hash_partition('oracle'::regclass, {n}, s, k) AS ok "
                f"FROM unnest($1::{sql_type}[], $2::int[]) AS x(k, s)",
                values,
                [shard_of(data_type, value, n) for value in values],
            )
            assert all(row["ok"] for row in rows), f"N = {n}, seed {seed}"
    finally:
        await connection.close()
