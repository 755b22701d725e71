"""One machine as a platform: the proxy is a child process, its configuration three files, the status a callback.

Invariant: the proxy ends with this process, whatever ends it; it is restarted when it dies, after a pause that doubles.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shardoperator.controller.platform import Desired
from shardoperator.models.manifest import Manifest
from shardoperator.models.observation import ProxyObservation
from shardoperator.models.spec import ShardedCluster
from shardoperator.models.status import Memory, Status, remembered
from shardoperator.reconcile.events import Event
from shardoperator.resources.config import Listen, RenderedConfig
from shardoperator.standalone.children import die_with_parent

log = logging.getLogger("pgshepherd.standalone")

DRAIN_TIMEOUT = 10.0
"""Seconds in which the proxy finishes what was decided, after SIGTERM; also what a lost parent's proxy has left to live."""
STOP_TIMEOUT = 15.0
"""Seconds between SIGTERM and SIGKILL."""
RESTART_FIRST, RESTART_MAX = 0.2, 10.0
"""Pause before a proxy that died is started again: doubles from the first to the last (seconds)."""


class StandalonePlatform:
    """Files below `state`, and one child process."""

    def __init__(self, manifest: Manifest, state: Path, listen: Listen, on_status: Callable[[Status], None]) -> None:
        self.listen = listen
        self.restarts = True
        """False: a proxy that died stays dead (the demo shows what it left)."""
        self._manifest = manifest
        self._state = state
        self._on_status = on_status
        self._process: asyncio.subprocess.Process | None = None
        self._served = ""
        self._files: Mapping[str, str] = {}
        self._pause = RESTART_FIRST
        self._not_before = 0.0

    @property
    def proxy_pid(self) -> int | None:
        """Of the running proxy."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def recall(self) -> Memory:
        """What the last run wrote down; a file that can't be read is no memory, and is said so."""
        path = self._state / "status.json"
        try:
            return remembered(json.loads(path.read_text()))
        except FileNotFoundError:
            return Memory()
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("%s can't be read (%s): conditions begin anew", path, error)
            return Memory()

    def instances(self, cluster: ShardedCluster) -> int:
        """As many as on Kubernetes, although one runs here at a time: a manifest asks the shards for the same everywhere."""
        return cluster.spec.proxy.replicas + 1

    async def read(self) -> Desired:
        """A file is read once, when the command starts."""
        return Desired(self._manifest.cluster.metadata, self._manifest)

    async def observe_proxy(self) -> ProxyObservation | None:
        """By its health port."""
        if self._process is None:
            return None
        if self._process.returncode is not None:
            return ProxyObservation(1, 0, self._served, message=f"the proxy ended with code {self._process.returncode}")
        ready = await self._ready()
        return ProxyObservation(
            1, int(ready), self._served, message="" if ready else "the proxy does not answer on its health port"
        )

    async def _ready(self) -> bool:
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.listen.health_port)
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = await reader.read(64)
                writer.close()
        except (OSError, TimeoutError):
            return False
        return answer.startswith(b"HTTP/1.1 200")

    async def apply_proxy(self, cluster: ShardedCluster, config: RenderedConfig) -> None:
        """Start it, restart it with a changed configuration, or leave it alone."""
        alive = self.proxy_pid is not None
        if alive and self._served == config.config_hash:
            if await self._ready():
                self._pause = RESTART_FIRST
            if self._files != config.files:  # what replicates the shards: the proxy reads it again by itself
                await asyncio.to_thread(self._write_files, config)
            return
        now = asyncio.get_running_loop().time()
        if self._process is not None and not alive:
            if not self.restarts or now < self._not_before:
                return
            self._not_before = now + self._pause
            self._pause = min(RESTART_MAX, self._pause * 2)
        if alive:
            await self.stop()
        await asyncio.to_thread(self._write_files, config)
        await self._start()
        self._served = config.config_hash

    def _write_files(self, config: RenderedConfig) -> None:
        """Each is replaced in one step, readable by us alone: users.toml holds passwords."""
        self._files = config.files
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, text in config.files.items():
            temporary = self._state / f".{name}.new"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            temporary.replace(self._state / name)

    async def _start(self) -> None:
        with (self._state / "proxy.log").open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "shardoperator.cli.main", "proxy",
                "--config", str(self._state / "pgdog.toml"), "--users", str(self._state / "users.toml"),
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                preexec_fn=lambda: die_with_parent(signal.SIGTERM),
            )  # fmt: skip
        log.info("started the proxy, pid %d", self._process.pid)

    async def remove_proxy(self) -> None:
        """Drain it, and forget it."""
        await self.stop()
        self._process = None

    async def hold(self) -> None:
        """A file does not disappear under us."""

    async def let_go(self) -> None:
        """Nobody deletes a file's cluster; its proxy ends with the command."""

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not drain in time."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL: nothing is said to anybody."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def write_status(self, status: Status, events: Sequence[Event]) -> None:
        """To whoever shows it, and to status.json; transitions are shown with it."""
        self._on_status(status)
        await asyncio.to_thread(self._write_status, json.dumps(status.to_json(), indent=2))

    def _write_status(self, text: str) -> None:
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self._state / ".status.json.new"
        temporary.write_text(text + "\n")
        temporary.replace(self._state / "status.json")
