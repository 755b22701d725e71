"""An application in a pod: moves money over both shards until its standard input ends, and writes down what it was told.

Only the standard library and a stock driver, since it runs in the proxy's image. Its argument and its output are JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import sys

import asyncpg

COMMITTED, FAILED, UNKNOWN = "committed", "failed", "unknown"
_LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
_TRANSACTION_RESOLUTION_UNKNOWN = "08007"


async def _move(client: asyncpg.Connection, source: int, target: int, token: str) -> str:
    """What the client knows afterwards; a connection that was lost before COMMIT was sent leaves no doubt."""
    doubt = FAILED
    try:
        transaction = client.transaction()
        await transaction.start()
        for account, amount in ((source, -1), (target, 1)):
            await client.execute("UPDATE accounts SET balance = balance + $2 WHERE customer_id = $1", account, amount)
            await client.execute("INSERT INTO entries (customer_id, token, amount) VALUES ($1, $2, $3)", account, token, amount)
        doubt = UNKNOWN
        await transaction.commit()
    except _LOST as error:
        sys.stderr.write(f"{doubt}: {error!r}\n")
        return doubt
    except asyncpg.PostgresError as error:
        sys.stderr.write(f"{doubt}, {error.sqlstate}: {error}\n")
        return doubt if error.sqlstate == _TRANSACTION_RESOLUTION_UNKNOWN else FAILED
    return COMMITTED


async def _teller(dsn: str, accounts: list[list[int]], stop: asyncio.Event, told: dict[str, str]) -> None:
    while not stop.is_set():
        try:
            client = await asyncpg.connect(dsn, timeout=10)
        except (*_LOST, asyncpg.PostgresError):
            await asyncio.sleep(0.2)
            continue
        try:
            word = COMMITTED
            while word == COMMITTED and not stop.is_set():  # whoever was told anything else begins anew
                token = secrets.token_hex(8)
                word = told[token] = await _move(client, random.choice(accounts[0]), random.choice(accounts[1]), token)
        finally:
            client.terminate()


async def main(dsn: str, accounts: list[list[int]], tellers: int) -> None:
    """Until the end of standard input; at least one transfer is tried by each teller."""
    stop, told = asyncio.Event(), dict[str, str]()
    working = [asyncio.create_task(_teller(dsn, accounts, stop, told)) for _ in range(tellers)]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    stop.set()
    await asyncio.wait_for(asyncio.gather(*working), 120)
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
