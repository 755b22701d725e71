"""Where transactions are broken off and judged: shards with tables, a proxy that starts quickly, and the invariants.

Each *attempt* is one transaction that writes its own token on every participant, so that the shards themselves say afterwards
how it ended on each of them.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from bench import Bench, accounts_on
from points import Point
from shardoperator.models.observation import RecoveryReport
from shardoperator.shards.application import Told
from shardoperator.standalone.demo.link import When
from warm import Warm, kill

TABLES = """
SET ROLE app;
CREATE TABLE accounts (customer_id bigint PRIMARY KEY, token text NOT NULL DEFAULT '');
CREATE TABLE strict (customer_id bigint UNIQUE DEFERRABLE INITIALLY DEFERRED);
"""

FOREIGN = (
    "4660_Z3RyaWQ=_YnF1YWw=",
    "131077_AAAAAAAAAAAAAP//fwABAQ==_AAAAAA==",
    "citus_0_1234_5_6",
    "__pgdog_2pc_1_42_0",
    "__pgdog_2pc_s1_%_%",
    "pg_gid_16394_745",
    'o\'hara "says" 50%_',
    "__PGDOG_2PC_S1_00C0FFEE00C0FFEE_0123456789ABCDEF0123456789ABCDEF_2A_1_4_3_0_7044383C",
    "__pgdog_2pc_s1_00c0ffee00c0ffee_0123456789abcdef0123456789abcdef_2a_1_4_3_0_7044383c",  # ours, of another cluster
)

Transaction = Callable[[asyncpg.Connection, str], Awaitable[None]]


@dataclass
class Attempt:
    """One transaction and what its client was told."""

    token: str = field(default_factory=lambda: secrets.token_hex(8))
    told: Told = Told.NOTHING
    sqlstate: str = ""
    message: str = ""

    async def run(self, client: asyncpg.Connection, transaction: Transaction) -> None:
        try:
            await transaction(client, self.token)
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError) as error:
            self.told, self.message = Told.NOTHING, str(error)
            self.sqlstate = getattr(error, "sqlstate", "") or ""
        except asyncpg.PostgresError as error:
            self.told = Told.NOTHING if error.sqlstate == "08007" else Told.FAILED
            self.sqlstate, self.message = error.sqlstate or "", str(error)
        else:
            self.told = Told.COMMITTED


@dataclass
class Arena:
    """Shards with tables, and a proxy in front of them."""

    bench: Bench
    warm: Warm
    pid: int | None = None
    keys: list[int] = field(default_factory=list)
    """One key on each shard."""
    _fresh: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    async def build(cls, bench: Bench, warm: Warm, **two_phase: Any) -> Arena:
        arena = cls(bench, warm, keys=[keys[0] for keys in accounts_on(len(bench.servers))])
        await bench.on_shards(TABLES)
        for key, server in zip(arena.keys, bench.servers, strict=True):
            await server.psql(f"INSERT INTO accounts VALUES ({key})", bench.database)
        await bench.start_proxy(**two_phase)
        await bench.kill_proxy()
        return arena

    async def start(self) -> asyncpg.Connection:
        """A fresh proxy, and a client that has sent its first statements to every shard."""
        if self.pid is not None:
            await self.kill()
        for link in self.bench.links:
            link.heal()
        self.pid = await self.warm.proxy(self.bench.directory)
        client = await self.client()
        await client.fetch("SELECT token FROM accounts")
        return client

    async def client(self) -> asyncpg.Connection:
        async with asyncio.timeout(20):
            while True:
                try:
                    return await asyncpg.connect(self.bench.dsn, timeout=10, statement_cache_size=0)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.005)

    async def kill(self) -> None:
        """The proxy and every link of it, at once; then until the servers have noticed, so that nothing is under way any more."""
        if self.pid is not None:
            await kill(self.pid)
            self.pid = None
        for link in self.bench.links:
            link.cut()
            link.heal()
        await self.quiet()

    async def quiet(self) -> None:
        """Until no session of a proxy is left on the shards."""
        busy = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND application_name LIKE 'pgshepherd/%'"
        )
        async with asyncio.timeout(20):
            while any(int(count) for count in await self.bench.on_shards(busy)):
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Roll back what was planted, whatever its name."""
        await self.kill()
        for number in range(len(self.keys)):
            connection = await self.bench.shard(number)
            for (gid,) in await connection.fetch("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
                await connection.execute("ROLLBACK PREPARED '" + gid.replace("'", "''") + "'")
            await connection.close()

    # --- what the shards show

    async def parts(self) -> list[int]:
        """On each shard, how many transactions of ours are prepared."""
        sql = (
            f"SELECT count(*) FROM pg_prepared_xacts WHERE gid LIKE '%{self.bench.cluster_id}%' AND database = current_database()"
        )
        return [int(count) for count in await self.bench.on_shards(sql)]

    async def found(self, attempt: Attempt) -> frozenset[int]:
        """The shards on which the attempt's token is."""
        counts = await self.bench.on_shards(f"SELECT count(*) FROM accounts WHERE token = '{attempt.token}'")
        return frozenset(number for number, count in enumerate(counts) if count != "0")

    async def foreign(self) -> list[str]:
        """Every prepared transaction of the databases that is not ours, with owner and time."""
        sql = (
            "SELECT gid, owner, prepared FROM pg_prepared_xacts "
            f"WHERE gid NOT LIKE '%{self.bench.cluster_id}%' AND database = current_database() ORDER BY gid COLLATE \"C\""
        )
        return await self.bench.on_shards(sql)

    async def plant_foreign(self, number: int, names: Sequence[str] = FOREIGN) -> None:
        for name in names:
            quoted = name.replace("'", "''")
            relation = f"foreign_{next(self._fresh)}"
            await self.bench.servers[number].psql(
                f"BEGIN; CREATE TABLE {relation} (); PREPARE TRANSACTION '{quoted}'", self.bench.database
            )

    # --- recovery

    async def recover(self, count: int = 2, passes: int = 20) -> list[RecoveryReport]:
        """So many recoverers at once, until nothing of ours is prepared; their last reports."""
        controllers = [self.bench.recovery() for _ in range(count)]
        reports: list[RecoveryReport] = []
        for _ in range(passes):
            reports = await asyncio.gather(*(controller.run_pass() for controller in controllers))
            if not any(await self.parts()):
                return reports
        raise AssertionError(f"not resolved after {passes} passes: {reports}")


async def break_off(arena: Arena, transaction: Transaction, point: Point, when: When) -> tuple[Attempt, bool]:
    """Run it up to the message, kill the proxy there, and wait until the servers have seen everything that was sent.

    False: the message never came.
    """
    client = await arena.start()
    traps = point.traps(arena.bench.links, when)
    attempt = Attempt()
    task = asyncio.create_task(attempt.run(client, transaction))
    hits = [asyncio.create_task(trap.hit.wait()) for trap in traps]
    await asyncio.wait({task, *hits}, return_when=asyncio.FIRST_COMPLETED, timeout=15)
    for hit in hits:
        hit.cancel()
    await arena.kill()
    await task
    client.terminate()
    return attempt, any(trap.hit.is_set() for trap in traps)


def violations(told: Told, participants: frozenset[int], found: frozenset[int]) -> list[str]:
    """Invariants 1 and 2, on what a transaction left behind."""
    wrong = []
    if found not in (frozenset(), participants):
        wrong.append(f"invariant 1: committed on {sorted(found)} of {sorted(participants)}")
    if told is Told.COMMITTED and found != participants:
        wrong.append(f"invariant 2: the client was told COMMIT, found on {sorted(found)} of {sorted(participants)}")
    if told is Told.FAILED and found:
        wrong.append(f"invariant 2: the client got an error, found on {sorted(found)}")
    return wrong


async def check(arena: Arena, attempt: Attempt, participants: frozenset[int], foreign: list[str]) -> frozenset[int]:
    """All invariants that can be seen once recovery has run; where the attempt's token is."""
    assert await arena.parts() == [0] * len(arena.keys), "invariant 6: something of ours is still prepared"
    found = await arena.found(attempt)
    assert violations(attempt.told, participants, found) == []
    assert await arena.foreign() == foreign, "invariant 3: a foreign transaction was touched"
    report = await arena.bench.recovery().run_pass()
    assert not report.failed, "invariant 4: a shard could not be scanned"
    assert report.scanned == frozenset(range(len(arena.keys)))
    assert not report.actions, "invariant 5: a resolved transaction was resolved again"
    assert await arena.found(attempt) == found, "invariant 5: another pass changed the outcome"
    return found
