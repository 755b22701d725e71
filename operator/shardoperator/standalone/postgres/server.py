"""One PostgreSQL server: initdb, start, stop, crash, restart with other settings.

Invariant: it listens on loopback only, asks for SCRAM, and ends with the process that started it, whatever ends that.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardoperator.errors import StandaloneError
from shardoperator.standalone.children import die_with_parent
from shardoperator.standalone.postgres.binaries import Binaries, server_account

START_TIMEOUT = 60.0
"""Seconds until a server must accept connections."""


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class PostgresServer:
    """A server in its own directory."""

    directory: Path
    binaries: Binaries
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    superuser: str = "postgres"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)
    _process: asyncio.subprocess.Process | None = None

    @property
    def data(self) -> Path:
        """PGDATA."""
        return self.directory / "data"

    @property
    def log_file(self) -> Path:
        """The server's own log."""
        return self.directory / "log"

    def dsn(self, database: str = "postgres", user: str = "", password: str = "") -> str:
        """A connection URI; the superuser's unless another is named."""
        return f"postgresql://{user or self.superuser}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    async def initialize(self, template: Path | None = None) -> None:
        """initdb, or a copy of `template`, the data directory of a stopped server with the same password."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._own(self.directory)
        if template is not None:
            await asyncio.to_thread(shutil.copytree, template, self.data, symlinks=True)
            await asyncio.to_thread(self._own_tree, self.data)
            return
        secret = self.directory / "password"
        secret.write_text(self.password)
        self._own(secret)
        try:
            await self._run(
                "initdb", "-D", str(self.data), "-U", self.superuser, "-A", "scram-sha-256", f"--pwfile={secret}",
                "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions",
            )  # fmt: skip
        finally:
            secret.unlink()

    def _own(self, path: Path) -> None:
        account = server_account()
        if account is not None:
            os.chown(path, *account, follow_symlinks=False)
        if path.is_dir():
            path.chmod(0o700)

    def _own_tree(self, root: Path) -> None:
        for path in (root, *root.rglob("*")):
            self._own(path)

    async def start(self) -> None:
        """Start and wait until it accepts connections; raises StandaloneError with the end of its log."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "logging_collector": "off",
            "max_connections": "200",
            "shared_buffers": "32MB",
            **self.settings,
        }
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self.binaries.program("postgres"), "-D", str(self.data), *arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
                env=_environment(), preexec_fn=lambda: die_with_parent(signal.SIGQUIT), **_account(),
            )  # fmt: skip
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while not await self._accepts():
                    if self._process.returncode is not None:
                        raise StandaloneError(f"PostgreSQL did not start:\n{self.log_tail()}")
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise StandaloneError(f"PostgreSQL accepted no connection within {START_TIMEOUT:g} s:\n{self.log_tail()}") from None

    async def _accepts(self) -> bool:
        """A startup packet for a user that is not there is answered once the server is ready, without a login."""
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), 2)
        except (OSError, TimeoutError):
            return False
        try:
            body = b"\0\3\0\0user\0pgshepherd_probe\0\0"
            writer.write((len(body) + 4).to_bytes(4, "big") + body)
            answer = await asyncio.wait_for(reader.read(512), 5)
            return bool(answer) and b"57P03" not in answer
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()

    def log_tail(self) -> str:
        """The last lines of the server's log."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-10:])

    async def stop(self, mode: str = "fast") -> None:
        """`smart`, `fast` or `immediate`; nothing happens if it does not run."""
        await self._signal({"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])

    async def crash(self) -> None:
        """SIGKILL for the server and all its processes: as if the power had gone, but for the disk's cache."""
        if self._process is not None and self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    async def _signal(self, number: int) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(number)
        try:
            await asyncio.wait_for(self._process.wait(), 30)
        except TimeoutError:
            await self.crash()

    async def restart(self, settings: Mapping[str, str] | None = None, mode: str = "fast") -> None:
        """Stop and start, with changed settings."""
        await self.stop(mode)
        self.settings.update(settings or {})
        await self.start()

    async def psql(self, sql: str, database: str = "postgres") -> str:
        """Run a script as superuser; returns the unaligned rows; raises StandaloneError with psql's own words."""
        environment = {**_environment(), "PGPASSWORD": self.password, "PGCONNECT_TIMEOUT": "10"}
        return await self._run(
            "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port), "-U", self.superuser,
            "-d", database, "-c", sql, environment=environment,
        )  # fmt: skip

    async def _run(self, program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        process = await asyncio.create_subprocess_exec(
            self.binaries.program(program), *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, env=dict(environment or _environment()), cwd="/", preexec_fn=die_with_parent,
            start_new_session=True, **_account(),
        )  # fmt: skip
        try:
            out, err = await asyncio.wait_for(process.communicate(), START_TIMEOUT)
        except TimeoutError:
            raise StandaloneError(f"{program} did not end within {START_TIMEOUT:g} s") from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)  # initdb has children of its own
                await process.wait()
        if process.returncode != 0:
            raise StandaloneError(f"{program} failed: {err.decode(errors='replace').strip()}")
        return out.decode().strip()


def _account() -> dict[str, Any]:
    account = server_account()
    return {} if account is None else {"user": account[0], "group": account[1], "extra_groups": []}


def _environment() -> dict[str, str]:
    """Nothing of the caller's PG* variables."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C", "TZ": "UTC"}
