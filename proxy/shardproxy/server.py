"""The proxy process: listens, logs clients in, runs their sessions, drains on SIGTERM.

Invariant: every task belongs to the server and ends with it; a commit that was decided is finished before the process ends, as
long as `shutdown_timeout` allows.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import signal
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import uvloop
from pydantic import SecretStr

from shardproxy.admin.http import Response, serve_http
from shardproxy.backend.cluster import Cluster, Guarantees, Shard, SlotBudget
from shardproxy.backend.connection import Credentials, ShardAddress
from shardproxy.backend.pool import PoolLimits
from shardproxy.config.load import LoadedConfig, load, read_standbys
from shardproxy.config.models import ProxyConfig, TwoPhaseSection, UserEntry
from shardproxy.errors import ConfigError, LinkLost, ProtocolViolation, SqlError
from shardproxy.metrics import Metrics
from shardproxy.protocol import messages as pg
from shardproxy.protocol.auth import Verifier, authenticate_client, make_verifier
from shardproxy.protocol.wire import Wire
from shardproxy.query.commit import CommitTimeouts
from shardproxy.query.deadlock import DeadlockGuard
from shardproxy.query.login import Hello, greet, read_hello
from shardproxy.query.relay import Sink
from shardproxy.query.router import Router
from shardproxy.query.session import Session
from shardproxy.query.state import SessionState, User
from shardproxy.routing.schema import RoutingContext, ShardedTable

log = logging.getLogger("pgshepherd.proxy")

STANDBYS_INTERVAL = 2.0
"""Seconds after which pgshepherd.toml is read again for what replicates the shards."""


def build_cluster(config: ProxyConfig) -> Cluster:
    """The shards as configured."""
    general, ours = config.pgdog.general, config.pgshepherd
    shards = []
    for database in sorted(config.pgdog.databases, key=lambda each: each.shard):
        identity = ours.shards[database.shard] if ours is not None else None
        address = ShardAddress(
            position=database.shard,
            number=identity.number if identity is not None else database.shard,
            host=database.host,
            port=database.port,
            database=database.database_name or database.name,
            system_identifier=identity.system_identifier if identity is not None else None,
        )
        login = Credentials(identity.coordinator_user, _secret(identity.coordinator_password)) if identity is not None else None
        shards.append(Shard(address, login))
    limits = PoolLimits(
        size=general.default_pool_size,
        checkout_timeout=general.checkout_timeout / 1000,
        connect_timeout=general.connect_timeout / 1000,
        idle_timeout=general.idle_timeout / 1000,
        lifetime=general.server_lifetime / 1000,
    )
    cluster_id = ours.cluster.id if ours is not None else ""
    budget = (
        SlotBudget(ours.two_phase_commit.slots_per_shard, ours.two_phase_commit.slot_timeout / 1000) if ours else SlotBudget()
    )
    section = ours.two_phase_commit if ours is not None else TwoPhaseSection()
    guarantees = Guarantees(section.last_agent, replicated=section.durability == "replicated")
    cluster = Cluster(cluster_id, shards, limits, application_name(config), budget, guarantees)
    if ours is not None:
        cluster.standbys = {shard.number: shard.standbys for shard in ours.shards}
    return cluster


def application_name(config: ProxyConfig, client: str = "") -> str:
    """How our sessions show in pg_stat_activity; Postgres cuts it at 63 bytes."""
    ours = config.pgshepherd
    prefix = f"pgshepherd/{ours.cluster.id[:8]}/{ours.instance.name}" if ours is not None else "pgshepherd"
    return f"{prefix}/{client}".encode()[:63].decode(errors="ignore")


def _secret(value: SecretStr) -> str:
    return value.get_secret_value()


class ProxyServer:
    """One proxy."""

    def __init__(self, loaded: LoadedConfig) -> None:
        self.config = loaded.config
        self._pgshepherd = loaded.pgshepherd
        self.metrics = Metrics()
        self.cluster = build_cluster(self.config)
        self.sessions: dict[tuple[int, int], Session] = {}
        """By cancel key."""
        self._users = {entry.name: self._user(entry) for entry in self.config.users.users}
        self._verifiers: dict[str, Verifier] = {}
        self._routers: dict[str, Router] = {}
        self._commits: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.Task[None]] = set()
        self._logging_in: set[asyncio.Task[None]] = set()
        """Those of the clients that have no session yet."""
        self._next_home = 0
        self._draining = False

    def _user(self, entry: UserEntry) -> User:
        general = self.config.pgdog.general
        password = entry.server_password or entry.password
        two_phase = general.two_phase_commit if entry.two_phase_commit is None else entry.two_phase_commit
        auto = general.two_phase_commit_auto if entry.two_phase_commit_auto is None else entry.two_phase_commit_auto
        return User(entry.name, Credentials(entry.server_user or entry.name, _secret(password)), entry.pool_size, two_phase, auto)

    async def _watch_standbys(self) -> None:
        """What the operator sees of replication changes while we run: it is read again, and nothing else of the file."""
        wanted = self.cluster.guarantees != Guarantees()
        while wanted and self._pgshepherd is not None:
            await asyncio.sleep(STANDBYS_INTERVAL)
            try:
                self.cluster.standbys = await asyncio.to_thread(read_standbys, self._pgshepherd, self.cluster.cluster_id)
            except ConfigError as error:
                log.warning("what replicates the shards is not known anew: %s", error)

    # --- from start to end

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain."""
        general, ours = self.config.pgdog.general, self.config.pgshepherd
        for entry in self.config.users.users:
            self._verifiers[entry.name] = make_verifier(_secret(entry.password))
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        listening = loop.create_server(lambda: Wire(self._accept), general.host, general.port, backlog=1024)
        servers = [await _listen("general.port", general.host, general.port, listening)]
        servers.extend(await self._monitoring())
        deadlock_timeout = (ours.two_phase_commit.deadlock_timeout if ours is not None else 1000) / 1000
        states = _States(self.sessions)
        tasks = [
            asyncio.create_task(self.cluster.keep(), name="keep"),
            asyncio.create_task(self._watch_standbys(), name="standbys"),
            asyncio.create_task(DeadlockGuard(self.cluster, states, deadlock_timeout, self.metrics).run(), name="deadlock guard"),
        ]
        log.info("listening on %s:%d, %d shards", general.host, general.port, len(self.cluster.shards))
        try:
            await stop.wait()
            log.info("draining")
            await self._drain(servers[0], general.shutdown_timeout / 1000)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for server in servers:
                server.close()
            self.cluster.close()

    async def _monitoring(self) -> list[asyncio.Server]:
        general, ours = self.config.pgdog.general, self.config.pgshepherd
        servers = []
        health = general.healthcheck_port or (ours.health.port if ours is not None else None)
        host = ours.health.host if ours is not None else general.host
        if health:
            routes = {"/livez": lambda: Response(200, b"ok\n"), "/readyz": self._ready, "*": self._up}
            servers.append(await _listen("health.port", host, health, serve_http(host, health, routes)))
        if general.openmetrics_port:
            host, port = general.openmetrics_host, general.openmetrics_port
            listening = serve_http(host, port, {"*": self._metrics})
            servers.append(await _listen("general.openmetrics_port", host, port, listening))
        return servers

    def _ready(self) -> Response:
        state = {
            "ready": not self._draining,
            "reason": "Draining" if self._draining else "Serving",
            "routing_hash": self.config.pgshepherd.cluster.routing_hash if self.config.pgshepherd is not None else "",
        }
        return Response(503 if self._draining else 200, json.dumps(state).encode() + b"\n", "application/json")

    def _up(self) -> Response:
        return Response(502, b"down") if self._draining else Response(200, b"up")

    def _metrics(self) -> Response:
        for number, count in self.cluster.usage().items():
            self.metrics.servers.labels(str(number)).set(count)
        for number, used in self.cluster.slots.used.items():
            self.metrics.slots.labels(str(number)).set(used)
        self.metrics.clients.set(len(self.sessions))
        return Response(200, self.metrics.text(), "text/plain; version=0.0.4; charset=utf-8")

    async def _drain(self, server: asyncio.Server, timeout: float) -> None:
        """No new clients; idle ones go at once, others after their transaction; commits are finished."""
        self._draining = True
        server.close()
        for task in tuple(self._logging_in):
            task.cancel()
        for session in tuple(self.sessions.values()):
            session.drain()
        try:
            async with asyncio.timeout(timeout):
                while self._clients or self._commits:
                    await asyncio.wait(self._clients | self._commits, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            log.warning("%d clients and %d commits did not end in time", len(self._clients), len(self._commits))
            for task in (*self._clients, *self._commits):
                task.cancel()
            await asyncio.gather(*self._clients, *self._commits, return_exceptions=True)

    # --- clients

    def _accept(self, wire: Wire) -> None:
        task = asyncio.create_task(self._client(wire))
        for tasks in (self._clients, self._logging_in):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _client(self, wire: Wire) -> None:
        try:
            hello = await read_hello(wire, self.config.pgdog.general.client_login_timeout / 1000)
            if hello.cancel is not None:
                await self._cancel(hello.cancel)
            else:
                await self._serve(wire, hello)
        except SqlError as error:
            error.severity = error.severity if error.severity == "FATAL" else "FATAL"
            wire.write(pg.error_response(error))
        except (LinkLost, ProtocolViolation) as error:
            log.info("client %s: %s", wire.peer, error)
        finally:
            wire.close()

    async def _cancel(self, key: tuple[int, int]) -> None:
        session = self.sessions.get(key)
        if session is not None:
            await session.state.cancel()

    async def _serve(self, wire: Wire, hello: Hello) -> None:
        user = self._users.get(hello.user)
        timeout = self.config.pgdog.general.client_login_timeout / 1000
        try:
            await authenticate_client(wire, hello.user, self._verifiers.get(hello.user), timeout)
        except SqlError:
            self.metrics.logins.labels("refused").inc()
            raise
        assert user is not None
        if hello.database != self.config.pgdog.databases[0].name:
            raise SqlError("3D000", f'database "{hello.database}" does not exist', severity="FATAL")
        self.metrics.logins.labels("accepted").inc()
        state = self._state(wire, user, hello)
        ours = {"application_name": hello.application_name, "client_encoding": "UTF8", "is_superuser": "off"}
        state.parameters = await self._parameters(state) | ours
        state.sink.told.update(state.parameters)
        key = (secrets.randbits(31), secrets.randbits(32))
        router = self._router(user)
        state.schema_changed = router.changed
        session = Session(wire, state, router)
        self.sessions[key] = session
        task = asyncio.current_task()
        assert task is not None
        self._logging_in.discard(task)
        try:
            greet(wire, state.parameters, *key)
            await session.run()
        finally:
            del self.sessions[key]

    def _state(self, wire: Wire, user: User, hello: Hello) -> SessionState:
        ours = self.config.pgshepherd
        timeouts = CommitTimeouts()
        if ours is not None:
            section = ours.two_phase_commit
            timeouts = CommitTimeouts(
                prepare=section.prepare_timeout / 1000,
                resolution=section.resolution_timeout / 1000,
                finish=section.finish_timeout / 1000,
            )
        self._next_home = (self._next_home + 1) % len(self.cluster.shards)
        startup = {**(hello.settings or {}), "application_name": application_name(self.config, hello.application_name)}
        return SessionState(
            user, self.cluster, Sink(wire), self.metrics, timeouts, self._commits, home=self._next_home, startup=startup
        )

    async def _parameters(self, state: SessionState) -> dict[str, str]:
        """What a server says of itself under these startup settings; any shard will do, so that one that is down locks nobody out."""
        failure: SqlError | None = None
        count = len(self.cluster.shards)
        for position in ((state.home + offset) % count for offset in range(count)):
            pool = self.cluster.pool(state.user.credentials, position, state.user.pool_size)
            try:
                connection = await pool.acquire(state.startup)
            except SqlError as error:
                failure = error
                continue
            parameters = dict(connection.parameters)
            pool.release(connection)
            state.home = position
            return parameters
        assert failure is not None
        raise failure

    def _router(self, user: User) -> Router:
        if user.name not in self._routers:
            tables = tuple(
                ShardedTable(table.column, table.data_type, table.name, table.schema_name)
                for table in self.config.pgdog.sharded_tables
            )
            self._routers[user.name] = Router(RoutingContext(len(self.cluster.shards), tables))
        return self._routers[user.name]


async def _listen(key: str, host: str, port: int, listening: Coroutine[Any, Any, asyncio.Server]) -> asyncio.Server:
    """Raises ConfigError where the address can't be had."""
    try:
        return await listening
    except OSError as error:
        raise ConfigError(f"{key} = {port}: can't listen on {host}:{port}: {error.strerror or error}") from None


class _States:
    """The states of all sessions, as they are when they are looked at."""

    def __init__(self, sessions: dict[tuple[int, int], Session]) -> None:
        self._sessions = sessions

    def __iter__(self) -> Iterator[SessionState]:
        return iter([session.state for session in self._sessions.values()])


def main(pgdog: Path, users: Path, pgshepherd: Path | None = None) -> int:
    """Run the proxy from its files until it is told to stop; returns the exit code."""
    try:
        loaded = load(pgdog, users, pgshepherd)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the one message of a program that does not start
        return 2
    level = {"trace": "DEBUG", "warn": "WARNING"}.get(
        loaded.config.pgdog.general.log_level, loaded.config.pgdog.general.log_level.upper()
    )
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for warning in loaded.warnings:
        log.warning("%s", warning)
    try:
        uvloop.run(ProxyServer(loaded).run())
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 - as above
        return 2
    return 0
