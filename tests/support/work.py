"""The transactions that crash and link tests break off: each writes the attempt's token on every shard that it changes."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from arena import Transaction


async def write(client: asyncpg.Connection, token: str, keys: Sequence[int]) -> None:
    """One statement for each shard."""
    for key in keys:
        await client.execute("UPDATE accounts SET token = $2 WHERE customer_id = $1", key, token)


def transfer(*keys: int) -> Transaction:
    """BEGIN .. COMMIT with a row on each of the keys' shards."""

    async def run(client: asyncpg.Connection, token: str) -> None:
        async with client.transaction():
            await write(client, token, keys)

    return run


def reading(written: Sequence[int], read: int) -> Transaction:
    """The same, with a shard that is only read."""

    async def run(client: asyncpg.Connection, token: str) -> None:
        async with client.transaction():
            await client.fetch("SELECT token FROM accounts WHERE customer_id = $1", read)
            await write(client, token, written)

    return run


async def automatic(client: asyncpg.Connection, token: str) -> None:
    """One statement outside a transaction that writes on every shard."""
    await client.execute(f"UPDATE accounts SET token = '{token}'")


def refused(keys: Sequence[int]) -> Transaction:
    """The second shard refuses to prepare: a deferred constraint."""

    async def run(client: asyncpg.Connection, token: str) -> None:
        async with client.transaction():
            await write(client, token, keys)
            await client.execute("INSERT INTO strict VALUES ($1)", keys[1])
            await client.execute("INSERT INTO strict VALUES ($1)", keys[1])

    return run
