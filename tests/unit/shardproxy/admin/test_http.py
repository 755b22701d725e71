"""The pages for probes and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from shardproxy.admin.http import Response, serve_http
from shardproxy.metrics import Metrics


@pytest_asyncio.fixture(loop_scope="session")
async def port() -> AsyncIterator[int]:
    server = await serve_http("127.0.0.1", 0, {"/livez": lambda: Response(200, b"ok\n"), "/readyz": lambda: Response(503, b"no")})
    yield server.sockets[0].getsockname()[1]
    server.close()


async def ask(port: int, data: bytes) -> bytes:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        answer = await reader.read()
        writer.close()
    return answer


@pytest.mark.parametrize(
    ("head", "first", "body"),
    [
        (b"GET /livez HTTP/1.1", b"HTTP/1.1 200 OK", b"ok\n"),
        (b"GET /livez?verbose=1 HTTP/1.0", b"HTTP/1.1 200 OK", b"ok\n"),
        (b"GET /readyz HTTP/1.1", b"HTTP/1.1 503 Service Unavailable", b"no"),
        (b"GET /other HTTP/1.1", b"HTTP/1.1 404 Not Found", b"not found\n"),
        (b"GET /\xff HTTP/1.1", b"HTTP/1.1 404 Not Found", b"not found\n"),
        (b"POST /livez HTTP/1.1", b"HTTP/1.1 405 Method Not Allowed", b"only GET\n"),
        (b"GET", b"HTTP/1.1 405 Method Not Allowed", b"only GET\n"),
    ],
)
async def test_answers(port: int, head: bytes, first: bytes, body: bytes) -> None:
    answer = await ask(port, head + b"\r\nHost: x\r\n\r\n")
    assert answer.split(b"\r\n")[0] == first
    assert answer.partition(b"\r\n\r\n")[2] == body
    assert f"Content-Length: {len(body)}".encode() in answer


async def test_a_head_without_end(port: int) -> None:
    assert await ask(port, b"GET / HTTP/1.1\r\n" + b"x" * 20_000) == b""


def test_metrics() -> None:
    metrics = Metrics()
    with metrics.in_flight(), metrics.step("Prepare", 3), metrics.step("ReadGids", 3):
        assert b"pgshepherd_proxy_two_phase_in_flight 1.0" in metrics.text()
    metrics.outcome("committed")
    metrics.non_atomic()
    text = metrics.text()
    assert b"pgshepherd_proxy_two_phase_in_flight 0.0" in text
    assert b'step_seconds_count{shard="3",step="prepare"} 1.0' in text
    assert b'transactions_total{outcome="committed"} 1.0' in text
    assert b"pgshepherd_proxy_non_atomic_commits_total 1.0" in text
