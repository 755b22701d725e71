"""A small HTTP server for probes and metrics: GET only, one answer for each connection.

Invariant: a slow or silent peer costs one connection for a few seconds, never more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

REQUEST_LIMIT = 8192
"""Bytes of a request's head."""
TIMEOUT = 5.0
"""Seconds for one request and its answer."""


@dataclass(frozen=True)
class Response:
    """What a route answers."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


Routes = Mapping[str, Callable[[], Response]]
"""By path; `*` answers every other."""


async def serve_http(host: str, port: int, routes: Routes) -> asyncio.Server:
    """Listen; the caller closes the server."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
                response = _answer(head, routes)
                writer.write(_encode(response))
                await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()

    return await asyncio.start_server(handle, host, port, limit=REQUEST_LIMIT)


def _answer(head: bytes, routes: Routes) -> Response:
    method, _, rest = head.partition(b" ")
    if method != b"GET":
        return Response(405, b"only GET\n")
    path = rest.split(b" ", 1)[0].split(b"?", 1)[0].decode(errors="replace")
    route = routes.get(path) or routes.get("*")
    return route() if route is not None else Response(404, b"not found\n")


_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 502: "Bad Gateway", 503: "Service Unavailable"}


def _encode(response: Response) -> bytes:
    head = (
        f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Unknown')}\r\n"
        f"Content-Type: {response.content_type}\r\nContent-Length: {len(response.body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + response.body
