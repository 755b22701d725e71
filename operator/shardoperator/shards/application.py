"""A stock driver, used as any application would: for the demo, which shows what an application sees."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum

import asyncpg


class Told(Enum):
    """What the client knows about a transaction that it tried to commit."""

    COMMITTED = "committed"
    FAILED = "failed"
    NOTHING = "nothing: the connection was lost"


@dataclass(frozen=True)
class Transfer:
    """Money from one account to another, with a token that is written beside both."""

    source: int
    target: int
    amount: int
    token: str


async def open_client(dsn: str) -> asyncpg.Connection:
    """Log in to the proxy."""
    return await asyncpg.connect(dsn, timeout=10)


async def execute(dsn: str, sql: str, *arguments: object) -> str:
    """One statement of its own; the tag."""
    client = await open_client(dsn)
    try:
        tag: str = await client.execute(sql, *arguments, timeout=30)
        return tag
    finally:
        await client.close(timeout=5)


async def transfer(client: asyncpg.Connection, one: Transfer) -> Told:
    """BEGIN .. COMMIT over two accounts."""
    try:
        async with client.transaction():
            await client.execute("UPDATE accounts SET balance = balance - $2 WHERE customer_id = $1", one.source, one.amount)
            await client.execute("UPDATE accounts SET balance = balance + $2 WHERE customer_id = $1", one.target, one.amount)
            for account in (one.source, one.target):
                await client.execute("INSERT INTO tokens (customer_id, token) VALUES ($1, $2)", account, one.token)
    except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError):
        return Told.NOTHING
    except asyncpg.PostgresError as error:
        return Told.NOTHING if error.sqlstate == "08007" else Told.FAILED
    return Told.COMMITTED


async def transfers(dsn: str, work: list[Transfer], parallel: int) -> dict[str, Told]:
    """Many, by several clients at a time; what each was told, by token."""
    told: dict[str, Told] = {}
    queue = list(work)

    async def worker() -> None:
        client = await open_client(dsn)
        try:
            while queue:
                one = queue.pop()
                told[one.token] = await transfer(client, one)
        finally:
            await client.close(timeout=5)

    await asyncio.gather(*(worker() for _ in range(parallel)))
    return told
