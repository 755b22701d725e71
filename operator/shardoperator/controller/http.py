"""Status as JSON, metrics and probes over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping

TIMEOUT = 5.0
"""Seconds for one request and its answer."""

Answer = tuple[int, str, bytes]
"""Code, content type, body."""


def json_answer(code: int, value: object) -> Answer:
    """A JSON body."""
    return code, "application/json", json.dumps(value, indent=2).encode() + b"\n"


async def serve(host: str, port: int, routes: Mapping[str, Callable[[], Answer]]) -> asyncio.Server:
    """GET only, one answer for each connection; raises OSError if the address is taken."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].split(b"?", 1)[0].decode(errors="replace")
                route = routes.get(path)
                code, kind, body = route() if route is not None else (404, "text/plain", b"not found\n")
                phrase = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}.get(code, "Unknown")
                lines = f"HTTP/1.1 {code} {phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                writer.write(lines.encode() + body)
                await writer.drain()
        except (TimeoutError, ConnectionError, IndexError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()

    return await asyncio.start_server(handle, host, port, limit=8192)
