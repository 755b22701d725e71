"""A sharded cluster on real servers for tests: PostgreSQL servers, a link in front of each, adopted shards, proxies as processes.

The servers live for the whole test run; each test gets databases of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import shutil
import signal
import sys
import tempfile
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import tomli_w

from shardoperator.models.manifest import Secrets, parse_manifest
from shardoperator.models.spec import ShardedCluster
from shardoperator.recovery.controller import RecoveryController
from shardoperator.resources.config import Listen, Logins, render_config
from shardoperator.shards.adopt import adopt
from shardoperator.shards.connect import ShardTarget
from shardoperator.shards.install import Logins as InstallLogins
from shardoperator.shards.install import install
from shardoperator.standalone.children import die_with_parent
from shardoperator.standalone.demo.link import FaultLink
from shardoperator.standalone.postgres.binaries import install_embedded
from shardoperator.standalone.postgres.server import PostgresServer, free_port

PASSWORD = "s3cret-of-the-tests"
_numbers = itertools.count(1)


def scratch_directory() -> Path:
    """A new folder that the servers' account can read."""
    directory = Path(tempfile.mkdtemp(prefix="pgshepherd-test-"))
    directory.chmod(0o755)  # the servers' account must get through
    return directory


@dataclass
class Servers:
    """Running PostgreSQL servers, shared by tests."""

    directory: Path
    servers: list[PostgresServer]

    @classmethod
    async def start(cls, count: int) -> Servers:
        directory = scratch_directory()
        binaries = install_embedded(directory)
        settings = {"max_prepared_transactions": "100", "fsync": "off"}
        servers = [PostgresServer(directory / f"pg-{number}", binaries, dict(settings)) for number in range(count)]
        await asyncio.gather(*(server.initialize() for server in servers))
        await asyncio.gather(*(server.start() for server in servers))
        for server in servers:
            await server.psql(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE recovery LOGIN PASSWORD '{PASSWORD}'")
        return cls(directory, servers)

    async def close(self) -> None:
        await asyncio.gather(*(server.stop("immediate") for server in self.servers))
        shutil.rmtree(self.directory, ignore_errors=True)


def _with(text: str, section: str, values: Mapping[str, object]) -> str:
    """A file of TOML with other values in one section."""
    data = tomllib.loads(text)
    data[section] = {**data.get(section, {}), **values}
    return tomli_w.dumps(data)


@dataclass
class Bench:
    """One sharded cluster: a database on each server."""

    servers: list[PostgresServer]
    database: str
    directory: Path
    links: list[FaultLink] = field(default_factory=list)
    cluster_id: str = ""
    listen: Listen = field(default_factory=lambda: Listen("127.0.0.1", free_port(), free_port(), free_port(), "test-proxy-0"))
    proxy: asyncio.subprocess.Process | None = None
    standbys: str = "unknown"
    """What the proxy is told of what replicates each shard."""

    @property
    def dsn(self) -> str:
        """Of the proxy."""
        return f"postgresql://app:{PASSWORD}@127.0.0.1:{self.listen.port}/shop"

    def manifest(self, *, direct: bool = False, extra: str = "") -> str:
        ports = [server.port if direct else link.port for server, link in zip(self.servers, self.links, strict=True)]
        shards = "\n".join(
            f"    - {{name: shop-{n}, host: 127.0.0.1, port: {port}, database: {self.database}, credentialsSecretRef: {{name: recovery}}}}"
            for n, port in enumerate(ports)
        )
        return f"""\
apiVersion: pgshepherd.io/v1alpha1
kind: ShardedCluster
metadata: {{name: shop}}
spec:
  database: shop
  shards:
{shards}
  users: [{{name: app, passwordSecretRef: {{name: app}}}}]
  shardedTables:
    - {{column: customer_id, dataType: bigint}}
    - {{name: words, column: word, dataType: varchar}}
    - {{name: things, column: thing, dataType: uuid}}
  proxy: {{replicas: 1, port: {self.listen.port}}}
  recovery: {{gracePeriod: 1s, alertAfter: 10m}}
{extra}---
{{apiVersion: v1, kind: Secret, metadata: {{name: recovery}}, stringData: {{username: recovery, password: "{PASSWORD}"}}}}
---
{{apiVersion: v1, kind: Secret, metadata: {{name: app}}, stringData: {{password: "{PASSWORD}"}}}}
"""

    @property
    def cluster(self) -> ShardedCluster:
        return parse_manifest(self.manifest()).cluster

    @property
    def secrets(self) -> Secrets:
        return parse_manifest(self.manifest()).secrets

    def targets(self, *, direct: bool = True) -> list[ShardTarget]:
        """Recovery's logins; direct, or through the links."""
        ports = [server.port if direct else link.port for server, link in zip(self.servers, self.links, strict=True)]
        return [
            ShardTarget(f"shop-{n}", n, "127.0.0.1", port, self.database, "recovery", PASSWORD) for n, port in enumerate(ports)
        ]

    def recovery(self, *, grace: float = 0.0, resolve: bool = True, direct: bool = True) -> RecoveryController:
        targets = self.targets(direct=direct)
        return RecoveryController(self.cluster_id, targets, frozenset(range(len(self.servers))), grace=grace, resolve=resolve)

    async def prepare(self) -> None:
        for server in self.servers:
            await server.psql(f"CREATE DATABASE {self.database}")
            await server.psql("GRANT ALL ON SCHEMA public TO app", self.database)
            link = FaultLink(server.port)
            await link.start()
            self.links.append(link)
        for number, server in enumerate(self.servers):
            place = (f"shop-{number}", number, "127.0.0.1", server.port, self.database)
            await install(ShardTarget(*place, server.superuser, server.password), InstallLogins("recovery", "recovery", ("app",)))
        self.cluster_id = await adopt(self.targets(), secrets.token_hex(8))

    async def start_proxy(self, general: Mapping[str, object] | None = None, *, ours: bool = True, **two_phase: object) -> None:
        """As a process of its own; returns once it accepts clients.  Keys of [general], and without `ours` no pgshepherd.toml."""
        identifiers = [int(await server.psql("SELECT system_identifier FROM pg_control_system()")) for server in self.servers]
        logins = Logins([("recovery", PASSWORD)] * len(self.servers), {"app": PASSWORD})
        files = dict(render_config(self.cluster, self.cluster_id, identifiers, logins, self.listen).files)
        files["pgshepherd.toml"] = _with(files["pgshepherd.toml"], "two_phase_commit", two_phase)
        files["pgshepherd.toml"] = files["pgshepherd.toml"].replace("[[shards]]", f'[[shards]]\nstandbys = "{self.standbys}"')
        files["pgdog.toml"] = _with(files["pgdog.toml"], "general", general or {})
        if not ours:
            del files["pgshepherd.toml"]
            (self.directory / "pgshepherd.toml").unlink(missing_ok=True)
        for name, text in files.items():
            (self.directory / name).write_text(text)
        with (self.directory / "proxy.log").open("ab") as log:
            self.proxy = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "shardoperator.cli.main", "proxy", "--config", str(self.directory / "pgdog.toml"),
                "--users", str(self.directory / "users.toml"), stdout=log, stderr=log, preexec_fn=die_with_parent,
            )  # fmt: skip
        async with asyncio.timeout(20):
            while True:
                assert self.proxy.returncode is None, self.log()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.listen.port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return

    def log(self) -> str:
        path = self.directory / "proxy.log"
        return path.read_text() if path.exists() else ""

    async def kill_proxy(self, number: int = signal.SIGKILL) -> None:
        if self.proxy is not None and self.proxy.returncode is None:
            os.kill(self.proxy.pid, number)
            await self.proxy.wait()

    async def client(self) -> asyncpg.Connection:
        return await asyncpg.connect(self.dsn, timeout=10)

    async def shard(self, number: int) -> asyncpg.Connection:
        """A superuser's connection to the shard itself."""
        return await asyncpg.connect(self.servers[number].dsn(self.database), timeout=10)

    async def on_shards(self, sql: str) -> list[str]:
        """psql's answer on each shard, as superuser."""
        return [await server.psql(sql, self.database) for server in self.servers]

    async def prepared(self) -> list[str]:
        return (" ".join(await self.on_shards("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"))).split()

    async def close(self) -> None:
        await self.kill_proxy()
        for link in self.links:
            await link.close()
        for server in self.servers:
            for gid in (
                await server.psql("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()", self.database)
            ).split():
                await server.psql(f"ROLLBACK PREPARED '{gid}'", self.database)
            await server.psql(f"DROP DATABASE {self.database} WITH (FORCE)")


@asynccontextmanager
async def bench(servers: Servers, count: int = 2) -> AsyncIterator[Bench]:
    """A fresh cluster over the first `count` servers."""
    number = next(_numbers)
    directory = servers.directory / f"bench-{number}"
    directory.mkdir()
    one = Bench(servers.servers[:count], f"shop{number}", directory)
    try:
        await one.prepare()
        yield one
    finally:
        await one.close()


def accounts_on(shards: int, count: int = 1) -> list[list[int]]:
    """Keys by the shard on which they live: `count` for each."""
    from shardproxy.routing.hashing import shard_of

    found: list[list[int]] = [[] for _ in range(shards)]
    for key in itertools.count(1):
        home = found[shard_of("bigint", key, shards)]
        if len(home) < count:
            home.append(key)
        if all(len(each) == count for each in found):
            return found
    raise AssertionError
