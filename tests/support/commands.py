"""`pgshepherd` as a process of its own, as a user or systemd would start it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardoperator.standalone.children import die_with_parent
from shardoperator.standalone.postgres.server import free_port

COMMAND = (sys.executable, "-m", "shardoperator.cli.main")
LIMIT = 90.0
"""Seconds for anything that must happen."""


@dataclass(frozen=True)
class Ended:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """All of it."""
        return self.out + self.err


async def pgshepherd(*arguments: str, environment: Mapping[str, str] | None = None) -> Ended:
    """Run it to its end.  It never shows a traceback."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})}, preexec_fn=die_with_parent,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), LIMIT)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    ended = Ended(process.returncode, out.decode(), err.decode())
    assert "Traceback" not in ended.said, ended.said
    return ended


@dataclass
class Operator:
    """A running `pgshepherd run`."""

    process: asyncio.subprocess.Process
    http: str
    state: Path
    log: Path

    async def get(self, path: str) -> tuple[int, bytes]:
        """Code and body; code 0 if nobody listens."""

        def fetch() -> tuple[int, bytes]:
            try:
                with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, error.read()
            except OSError:
                return 0, b""

        return await asyncio.to_thread(fetch)

    async def status(self) -> dict[str, Any] | None:
        """None before the first visit is over."""
        code, body = await self.get("/status")
        found: dict[str, Any] | None = json.loads(body) if code == 200 else None
        return found

    async def until(self, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first status for which it holds."""
        status: dict[str, Any] | None = None
        try:
            async with asyncio.timeout(LIMIT):
                while status is None or not what(status):
                    assert self.process.returncode is None, self.log.read_text()
                    await asyncio.sleep(0.05)
                    status = await self.status()
        except TimeoutError:
            raise AssertionError(f"it never came; last: {json.dumps(status, indent=1)}\n{self.log.read_text()}") from None
        return status

    async def until_condition(self, kind: str, status: str, reason: str = "") -> dict[str, Any]:
        """The condition, once it has that status, and that reason if one is given."""
        found = await self.until(lambda seen: _is(condition(seen, kind), status, reason))
        return condition(found, kind)

    def proxies(self) -> list[int]:
        """Pids of proxies of this operator."""
        return processes_with(str(self.state / "pgdog.toml"))

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), LIMIT)


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    """One condition of a status."""
    found: dict[str, Any] = next(one for one in status["conditions"] if one["type"] == kind)
    return found


def _is(found: dict[str, Any], status: str, reason: str) -> bool:
    return found["status"] == status and reason in ("", found["reason"])


@asynccontextmanager
async def operator(manifest: Path, directory: Path, *arguments: str) -> AsyncIterator[Operator]:
    """`pgshepherd run -f manifest`, with ports and a state folder of its own; killed at the end if it still runs."""
    http, state, log = f"127.0.0.1:{free_port()}", directory / "state", directory / "operator.log"
    ports = ("--proxy-metrics-port", str(free_port()), "--proxy-health-port", str(free_port()))
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "run", "-f", str(manifest), "--http", http, "--state", str(state), *ports, *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=die_with_parent,
        )  # fmt: skip
    running = Operator(process, http, state, log)
    try:
        yield running
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await gone(running.proxies)


def processes_with(text: str) -> list[int]:
    """Pids of living processes with this text in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text.encode() in (entry / "cmdline").read_bytes() and not _zombie(entry):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _zombie(entry: Path) -> bool:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"


async def gone(processes: Callable[[], list[int]]) -> None:
    """Until no such process is left."""
    async with asyncio.timeout(LIMIT):
        while processes():
            await asyncio.sleep(0.05)
