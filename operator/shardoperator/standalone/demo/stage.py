"""What the demo plays on: two PostgreSQL servers with a link in front of each, a manifest, the controller and its platform.

Invariant: whatever happens, `close` leaves no process, port or folder behind.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from shardoperator.controller.loop import ClusterController
from shardoperator.models.manifest import parse_manifest
from shardoperator.models.status import Status
from shardoperator.resources.config import Listen
from shardoperator.standalone.demo.link import FaultLink
from shardoperator.standalone.platform import StandalonePlatform
from shardoperator.standalone.postgres.binaries import install_embedded
from shardoperator.standalone.postgres.server import PostgresServer, free_port

_MANIFEST = """\
apiVersion: pgshepherd.io/v1alpha1
kind: ShardedCluster
metadata: {{name: shop}}
spec:
  database: shop
  shards:
{shards}
  users:
    - {{name: app, passwordSecretRef: {{name: shop-app, key: password}}}}
  shardedTables:
    - {{column: customer_id, dataType: bigint}}
  twoPhaseCommit: {{enabled: true, auto: true}}
  proxy: {{replicas: 1, port: {port}}}
  recovery: {{mode: Resolve, gracePeriod: 4s, alertAfter: 2s}}
{secrets}"""

_SHARD = """\
    - {{name: shop-{number}, host: 127.0.0.1, port: {port}, database: shop, credentialsSecretRef: {{name: recovery}},
       installerSecretRef: {{name: installer-{number}}}}}"""

_DOCUMENT = """\
---
{{apiVersion: v1, kind: Secret, metadata: {{name: {name}}}, stringData: {{username: "{user}", password: "{password}"}}}}
"""


class Stage:
    """Everything that runs."""

    def __init__(self, shards: int = 2) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pgshepherd-demo-"))
        self.directory.chmod(0o755)  # the servers' account must get through
        self.servers: list[PostgresServer] = []
        self.links: list[FaultLink] = []
        self.passwords = {"app": secrets.token_urlsafe(12), "recovery": secrets.token_urlsafe(12)}
        self.listen = Listen("127.0.0.1", free_port(), free_port(), free_port(), instance="demo-proxy-0")
        self._shards = shards
        self._controller: ClusterController | None = None
        self._platform: StandalonePlatform | None = None
        self._loop: asyncio.Task[None] | None = None

    @property
    def dsn(self) -> str:
        """Of the proxy, for an application."""
        return f"postgresql://app:{self.passwords['app']}@127.0.0.1:{self.listen.port}/shop"

    @property
    def controller(self) -> ClusterController:
        """Of the one cluster."""
        assert self._controller is not None
        return self._controller

    @property
    def platform(self) -> StandalonePlatform:
        """Of the one cluster."""
        assert self._platform is not None
        return self._platform

    async def start_servers(self) -> None:
        """As a DBA would hand them over: a database, two roles, and PostgreSQL's own default of max_prepared_transactions = 0."""
        binaries = await asyncio.to_thread(install_embedded, self.directory)
        self.servers = [PostgresServer(self.directory / f"pg-{number}", binaries) for number in range(self._shards)]
        # With return_exceptions a cancelled gather waits for all, so that none is still at work in a folder that is removed.
        prepared = await asyncio.gather(*(self._prepare(server) for server in self.servers), return_exceptions=True)
        for error in prepared:
            if error is not None:
                raise error
        for server in self.servers:
            link = FaultLink(server.port)
            await link.start()
            self.links.append(link)

    async def _prepare(self, server: PostgresServer) -> None:
        await server.initialize()
        await server.start()
        await server.psql("CREATE DATABASE shop")
        for role, password in self.passwords.items():
            await server.psql(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
        await server.psql("GRANT ALL ON SCHEMA public TO app", "shop")

    def manifest(self) -> str:
        """What a user would write; through the links, so that the network can fail."""
        shards = "\n".join(_SHARD.format(number=number, port=link.port) for number, link in enumerate(self.links))
        logins = [("shop-app", "app", self.passwords["app"]), ("recovery", "recovery", self.passwords["recovery"])]
        logins.extend((f"installer-{number}", server.superuser, server.password) for number, server in enumerate(self.servers))
        documents = "".join(_DOCUMENT.format(name=name, user=user, password=password) for name, user, password in logins)
        return _MANIFEST.format(shards=shards, port=self.listen.port, secrets=documents)

    def apply(self, on_status: Callable[[Status], None]) -> None:
        """The manifest is applied; nothing is visited yet."""
        manifest = parse_manifest(self.manifest(), "shop.yaml")
        self._platform = StandalonePlatform(manifest, self.directory / "state", self.listen, on_status)
        self._controller = ClusterController(self._platform, interval=0.5)

    def start_controller(self) -> None:
        """From here on the controller visits by itself."""
        self._loop = asyncio.create_task(self.controller.run(), name="controller")

    async def close(self) -> None:
        """The end of everything."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        ends = [link.close() for link in self.links] + [server.stop("immediate") for server in self.servers]
        if self._platform is not None:
            ends.append(self._platform.kill())
        await asyncio.gather(*ends, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_default_executor()  # threads that copy or write there
        shutil.rmtree(self.directory)
