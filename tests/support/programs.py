"""What tests do beside a driver: PostgreSQL's own programs against the proxy, its HTTP pages, and waiting for a condition."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from bench import PASSWORD, Bench

LIMIT = 30.0


@dataclass(frozen=True)
class Done:
    """How a program ended."""

    code: int
    out: str
    err: str


async def program(bench: Bench, name: str, *arguments: str) -> Done:
    """psql or pgbench, as an application's user against the proxy."""
    environment = {
        "PATH": os.environ["PATH"], "LANG": "C", "PGHOST": "127.0.0.1", "PGPORT": str(bench.listen.port), "PGUSER": "app",
        "PGPASSWORD": PASSWORD, "PGDATABASE": "shop", "PGCONNECT_TIMEOUT": "10",
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        bench.servers[0].binaries.program(name), *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env=environment, cwd=Path(bench.directory),
    )  # fmt: skip
    async with asyncio.timeout(LIMIT):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def psql(bench: Bench, *commands: str) -> Done:
    """Each command as a -c of its own; unaligned rows."""
    return await program(bench, "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *(f"-c{one}" for one in commands))


async def http(port: int, path: str) -> tuple[int, str]:
    """GET; status and body."""
    async with asyncio.timeout(LIMIT):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


async def metric(bench: Bench, name: str) -> float:
    """The sum of one of the proxy's metrics over its labels."""
    _, text = await http(bench.listen.metrics_port, "/metrics")
    return sum(float(value) for value in re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds; a test that waits in vain fails with TimeoutError."""
    async with asyncio.timeout(LIMIT):
        while not await condition():
            await asyncio.sleep(0.02)


async def sessions(bench: Bench, where: str = "true") -> int:
    """How many of the proxy's sessions for the application the shards see."""
    sql = f"SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND datname = current_database() AND ({where})"
    return sum(int(count) for count in await bench.on_shards(sql))


async def total(bench: Bench, table: str = "accounts", column: str = "balance") -> int:
    """The books: the sum over both shards, asked of the shards themselves."""
    return sum(int(value or 0) for value in await bench.on_shards(f"SELECT sum({column}) FROM {table}"))
