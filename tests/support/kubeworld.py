"""A ShardedCluster on a real Kubernetes API: shards on real PostgreSQL servers, the operator as a process with its own rights."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from bench import PASSWORD, Servers
from kube import Kubectl, KubectlError
from kubelet import Kubelet, Pod
from shardoperator.standalone.children import die_with_parent
from shardoperator.standalone.demo.link import FaultLink
from shardoperator.standalone.postgres.server import PostgresServer, free_port

ROOT = Path(__file__).parents[2]
PATIENCE = 90.0
"""Seconds until something that must happen has happened."""


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it does; TimeoutError if it never does."""
    async with asyncio.timeout(PATIENCE):
        while not await holds():
            await asyncio.sleep(0.1)


@dataclass
class Operator:
    """`pgshepherd operator` as a process, with the rights of its ServiceAccount and no other."""

    kubeconfig: Path
    log: Path
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "shardoperator.cli.main", "operator", "--kubeconfig", str(self.kubeconfig),
                "--lease-namespace", "pgshepherd", "--interval", "1", "--http", f"127.0.0.1:{self.port}",
                "--proxy-image", "example.com/pgshepherd/proxy:test",
                stdout=log, stderr=log, preexec_fn=die_with_parent, env={**os.environ, "KUBECONFIG": ""},
            )  # fmt: skip

    async def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
            await asyncio.wait_for(self.process.wait(), PATIENCE)
        assert self.process.returncode is not None
        return self.process.returncode

    def text(self) -> str:
        return self.log.read_text()


@dataclass
class World:
    """One namespace with one ShardedCluster named shop."""

    kubectl: Kubectl
    servers: list[PostgresServer]
    database: str
    links: list[FaultLink]
    kubelet: Kubelet

    @classmethod
    async def make(cls, kubectl: Kubectl, servers: Servers, kubelet: Kubelet, shards: int = 2) -> World:
        database = kubectl.namespace.replace("-", "_")
        links = []
        for server in servers.servers[:shards]:
            await server.psql(f"CREATE DATABASE {database}")
            await server.psql("GRANT ALL ON SCHEMA public TO app", database)
            links.append(FaultLink(server.port))
            await links[-1].start()
        world = cls(kubectl, servers.servers[:shards], database, links, kubelet)
        await kubectl("label", "namespace", kubectl.namespace, "pod-security.kubernetes.io/enforce=restricted")
        await world.secret("recovery", username="recovery", password=PASSWORD)
        await world.secret("app", password=PASSWORD)
        for number, server in enumerate(world.servers):
            await world.secret(f"installer-{number}", username=server.superuser, password=server.password)
        return world

    async def close(self) -> None:
        for link in self.links:
            await link.close()
        for server in self.servers:
            await server.psql(f"DROP DATABASE IF EXISTS {self.database} WITH (FORCE)")

    async def secret(self, name: str, **values: str) -> None:
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}
        await self.kubectl.apply(json.dumps(body))

    def manifest(self, **proxy: Any) -> dict[str, Any]:
        shards = [
            {
                "name": f"shop-{number}",
                "host": "127.0.0.1",
                "port": link.port,
                "database": self.database,
                "credentialsSecretRef": {"name": "recovery"},
                "installerSecretRef": {"name": f"installer-{number}"},
            }
            for number, link in enumerate(self.links)
        ]
        return {
            "apiVersion": "pgshepherd.io/v1alpha1",
            "kind": "ShardedCluster",
            "metadata": {"name": "shop"},
            "spec": {
                "database": "shop",
                "shards": shards,
                "users": [{"name": "app", "passwordSecretRef": {"name": "app"}}],
                "shardedTables": [{"column": "customer_id", "dataType": "bigint"}],
                "proxy": {"replicas": 1, **proxy},
                "recovery": {"gracePeriod": "1s", "alertAfter": "10m"},
            },
        }

    async def apply(self, manifest: dict[str, Any] | None = None) -> None:
        await self.kubectl.apply(json.dumps(manifest or self.manifest()))

    async def wait(self, condition: str, status: str = "True") -> None:
        await self.kubectl(
            "wait", f"--for=condition={condition}={status}", "shc/shop", f"--timeout={PATIENCE:.0f}s", timeout=PATIENCE + 10
        )

    async def object(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.kubectl("get", "shc", "shop", "-o", "json"))
        return found

    async def condition(self, kind: str) -> dict[str, Any]:
        conditions = (await self.object()).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})

    async def until_reason(self, kind: str, *reasons: str) -> dict[str, Any]:
        """Wait for a condition's reason; returns the condition."""
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(PATIENCE):
                while found.get("reason") not in reasons:
                    found = await self.condition(kind)
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{kind} never had the reason {reasons}, it is {found}") from None
        return found

    async def patch(self, body: dict[str, Any]) -> None:
        await self.kubectl("patch", "shc", "shop", "--type=merge", "-p", json.dumps(body))

    async def get(self, kind: str, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(await self.kubectl("get", kind, name, "-o", "json"))
        except KubectlError as error:
            if "not found" in str(error):
                return None
            raise
        return found

    async def pod(self) -> Pod:
        """The one proxy that runs and is ready."""
        async with asyncio.timeout(PATIENCE):
            while True:
                ready = [pod for pod in self.kubelet.running() if pod.ready and not pod.stopping]
                if len(ready) == 1 and len(self.kubelet.running()) == 1:
                    return ready[0]
                await asyncio.sleep(0.05)

    async def client(self) -> asyncpg.Connection:
        pod = await self.pod()
        return await asyncpg.connect(f"postgresql://app:{PASSWORD}@{pod.address}:6432/shop", timeout=10)

    async def prepared(self) -> list[str]:
        sql = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        return " ".join([await server.psql(sql, self.database) for server in self.servers]).split()
