"""Durability `replicated`, and last agent, on shards with real streaming standbys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

import points
from arena import Arena, Attempt, check
from bench import PASSWORD, Servers, bench
from shardoperator.shards.application import Told
from shardoperator.shards.install import Logins
from shardoperator.shards.probe import probe
from shardoperator.standalone.demo.link import When
from shardoperator.standalone.postgres.server import PostgresServer
from standby import Standby
from warm import Warm
from work import transfer

BOTH = frozenset({0, 1})
SETTINGS = {"max_prepared_transactions": "20", "fsync": "off"}


@dataclass
class Replicated:
    """Two shards on servers of their own, each with a standby."""

    arena: Arena
    standbys: list[Standby] = field(default_factory=list)

    async def names(self, names: str, *shards: int) -> None:
        """synchronous_standby_names on these shards, or on both."""
        for server in (self.arena.bench.servers[shard] for shard in shards or BOTH):
            await server.psql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
            await server.psql("SELECT pg_reload_conf()")
            async with asyncio.timeout(20):
                while await server.psql("SHOW synchronous_standby_names") != names:
                    await asyncio.sleep(0.02)

    async def seen(self) -> list[str]:
        """By the operator, with the recovery login."""
        logins = Logins("recovery", "recovery", ("app",))
        return [(await probe(target, logins)).standbys for target in self.arena.bench.targets()]

    async def until_seen(self, wanted: str) -> None:
        async with asyncio.timeout(30):
            while await self.seen() != [wanted] * 2:
                await asyncio.sleep(0.05)

    async def synchronous(self) -> None:
        """Until both servers say that their standbys are."""
        sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"
        async with asyncio.timeout(30):
            while await self.arena.bench.on_shards(sql) != ["1", "1"]:
                await asyncio.sleep(0.02)

    async def tell(self, seen: str) -> None:
        """As the operator does on its next visit: the file changes, the proxy goes on."""
        path = self.arena.bench.directory / "pgshepherd.toml"
        old = self.arena.bench.standbys
        temporary = path.with_suffix(".new")
        temporary.write_text(path.read_text().replace(f'standbys = "{old}"', f'standbys = "{seen}"'))
        temporary.replace(path)
        self.arena.bench.standbys = seen

    async def configure(self, seen: str, **two_phase: Any) -> None:
        """For the next proxy."""
        self.arena.bench.standbys = seen
        await self.arena.bench.start_proxy(**two_phase)
        await self.arena.bench.kill_proxy()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def replicated(servers: Servers, warm: Warm) -> AsyncIterator[Replicated]:
    directory, binaries = servers.directory / "replicated", servers.servers[0].binaries
    own = [PostgresServer(directory / f"pg-{number}", binaries, dict(SETTINGS)) for number in BOTH]
    followers: list[Standby] = []
    try:
        for server in own:
            await server.initialize()
            await server.start()
            for role in ("app", "recovery"):
                await server.psql(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        async with bench(Servers(directory, list(own)), 2) as one:
            here = Replicated(await Arena.build(one, warm), followers)
            try:
                assert await here.seen() == ["none", "none"]
                for number, server in enumerate(own):
                    standby = Standby(directory / f"standby-{number}", binaries, dict(SETTINGS), password=server.password)
                    followers.append(standby)
                    await standby.follow(server, server.port)
                yield here
            finally:
                await here.names("")
                await here.arena.close()
    finally:
        for server in (*followers, *own):
            await server.stop("immediate")


@pytest.mark.parametrize("monitor", [False, True])
async def test_what_the_operator_sees(replicated: Replicated, monitor: bool) -> None:
    verb = "GRANT pg_monitor TO recovery" if monitor else "REVOKE pg_monitor FROM recovery"
    await replicated.arena.bench.on_shards(verb)
    await replicated.names("")
    await replicated.until_seen("asynchronous")
    await replicated.names("*")
    await replicated.until_seen("synchronous")
    if monitor:
        await replicated.names("another")
        await replicated.until_seen("asynchronous")
    await replicated.names("")
    await replicated.arena.bench.on_shards("REVOKE pg_monitor FROM recovery")


async def test_refused_before_anything_is_prepared_and_allowed_once_it_is_replicated(replicated: Replicated) -> None:
    await replicated.names("*")
    await replicated.synchronous()
    await replicated.configure("asynchronous", durability="replicated")
    arena = replicated.arena
    foreign, client = await arena.foreign(), await arena.start()
    for link in arena.bench.links:
        link.seen = []
    refused = Attempt()
    await refused.run(client, transfer(*arena.keys))
    assert (refused.told, refused.sqlstate) == (Told.FAILED, "55000"), refused
    assert "no synchronous standby" in refused.message
    assert not any(b"PREPARE" in frame for link in arena.bench.links for _, frame in link.seen or [])
    assert await arena.found(refused) == frozenset()
    one_shard = Attempt()
    await one_shard.run(client, transfer(arena.keys[0]))
    assert one_shard.told is Told.COMMITTED, "one shard is no matter of the commit protocol"
    await replicated.tell("synchronous")
    async with asyncio.timeout(30):
        while True:
            attempt = Attempt()
            await attempt.run(client, transfer(*arena.keys))
            if attempt.told is Told.COMMITTED:
                break
            assert attempt.sqlstate == "55000", attempt
    for standby in replicated.standbys:
        async with asyncio.timeout(20):
            while await standby.psql("SELECT count(*) FROM pgshepherd.commit_record", arena.bench.database) == "0":
                await asyncio.sleep(0.02)
    client.terminate()
    await arena.kill()
    await check(arena, attempt, BOTH, foreign)


async def test_last_agent_whose_standby_is_away(replicated: Replicated) -> None:
    """Its COMMIT waits, so the tombstone waits, so the session is fenced: what is committed locally only is not told, nor finished."""
    arena = replicated.arena
    await replicated.names("*")
    await replicated.synchronous()
    await replicated.configure("synchronous", last_agent=True, prepare_timeout=1500, resolution_timeout=3000)
    foreign, client, attempt = await arena.foreign(), await arena.start(), Attempt()
    decide = next(point for point in points.LAST_AGENT if point.name == "decide")
    traps = decide.traps(arena.bench.links, When.BEFORE)
    task = asyncio.create_task(attempt.run(client, transfer(*arena.keys)))
    async with asyncio.timeout(20):
        while not any(trap.hit.is_set() for trap in traps):
            await asyncio.sleep(0.01)
    decision = next(number for number, trap in enumerate(traps) if trap.hit.is_set())
    await replicated.names("gone", decision)
    for link in arena.bench.links:
        link.heal()
    async with asyncio.timeout(30):
        await task
    assert (attempt.told, attempt.sqlstate) == (Told.NOTHING, "08007"), attempt
    async with asyncio.timeout(30):
        while await arena.found(attempt) != {decision}:
            await asyncio.sleep(0.02)
    assert sum(await arena.parts()) == 1, "the other shard is not told before the decision is replicated"
    await replicated.names("*", decision)
    async with asyncio.timeout(40):
        while any(await arena.parts()):
            await asyncio.sleep(0.02)
    assert await arena.found(attempt) == BOTH
    client.terminate()
    await arena.kill()
    await check(arena, attempt, BOTH, foreign)
