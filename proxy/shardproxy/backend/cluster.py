"""All pools of one proxy: for each application user, for its control sessions, and for the coordinator's own login.

Invariant: what a client does can never use up the connections that finish transactions: those pools are apart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from shardproxy.backend.connection import Credentials, ServerConnection, ShardAddress
from shardproxy.backend.pool import Pool, PoolLimits
from shardproxy.config.models import Standbys
from shardproxy.errors import LinkLost, SqlError

log = logging.getLogger("pgshepherd.proxy.backend")

CONTROL_POOL_SIZE = 4
"""Connections per login and shard for COMMIT PREPARED, questions, and the deadlock guard."""

CONTROL_SETTINGS: Mapping[str, str] = {
    "synchronous_commit": "on",
    "client_min_messages": "warning",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "search_path": "pg_catalog",
}
"""Startup parameters of a control session: they override role and database settings, and no client's SET can reach them."""

EPOCH_REFRESH = 60.0
"""Seconds after which the epochs are read again; a stale one errs towards a clean abort."""


@dataclass(frozen=True)
class Shard:
    """One shard and the coordinator's own login there."""

    address: ShardAddress
    coordinator: Credentials | None = None


@dataclass(frozen=True)
class SlotBudget:
    """How many prepared transactions this proxy may have on each shard, and how long one waits for its turn (seconds)."""

    size: int = 50
    timeout: float = 5.0


@dataclass(frozen=True)
class Guarantees:
    """What is asked of a commit over several shards."""

    last_agent: bool = False
    replicated: bool = False


class Slots:
    """The budget of prepared transactions: so that max_prepared_transactions is never exceeded by the sum of the proxies."""

    def __init__(self, numbers: set[int], budget: SlotBudget) -> None:
        self._budget = budget
        self._free = {number: asyncio.Semaphore(budget.size) for number in numbers}
        self.used = dict.fromkeys(numbers, 0)

    async def acquire(self, numbers: Sequence[int]) -> None:
        """Take one slot on each shard; raises SqlError 53200 and takes none if that lasts too long."""
        taken: list[int] = []
        try:
            async with asyncio.timeout(self._budget.timeout):
                for number in sorted(numbers):  # in one order for all, so that two waiters can't block each other
                    await self._free[number].acquire()
                    taken.append(number)
                    self.used[number] += 1
        except BaseException as error:
            self.release(taken)
            if isinstance(error, TimeoutError):
                raise SqlError(
                    "53200",
                    f"all {self._budget.size} slots for prepared transactions of this proxy are in use",
                    hint="raise slots_per_shard together with max_prepared_transactions, or try again",
                ) from None
            raise

    def release(self, numbers: Sequence[int]) -> None:
        """Give the slots back."""
        for number in numbers:
            self.used[number] -= 1
            self._free[number].release()


class Cluster:
    """The shards of one logical database, in the order of pgdog.toml."""

    def __init__(
        self,
        cluster_id: str,
        shards: Sequence[Shard],
        limits: PoolLimits,
        application_name: str,
        slots: SlotBudget,
        guarantees: Guarantees,
    ) -> None:
        self.guarantees = guarantees
        self.standbys: Mapping[int, Standbys] = {}
        """What replicates each shard, by number, as the operator last saw."""
        self.cluster_id = cluster_id
        """16 hex digits; empty without pgshepherd.toml: then nothing may be prepared."""
        self.shards = tuple(shards)
        self.application_name = application_name
        self.slots = Slots({shard.address.number for shard in shards}, slots)
        self._limits = limits
        self._pools: dict[tuple[str, str, int], Pool] = {}
        self._numbers = {shard.address.number: position for position, shard in enumerate(self.shards)}
        self._epochs: dict[int, int] = {}
        self._timelines: dict[int, int] = {}

    def position(self, number: int) -> int:
        """A shard's index in the configuration."""
        return self._numbers[number]

    def pool(self, credentials: Credentials, position: int, size: int | None = None) -> Pool:
        """An application user's pool on one shard."""
        limits = self._limits if size is None else replace(self._limits, size=size)
        return self._pool("client", credentials, position, limits)

    def control(self, credentials: Credentials, position: int) -> Pool:
        """A user's control sessions on one shard, apart from its clients'."""
        return self._pool("control", credentials, position, replace(self._limits, size=CONTROL_POOL_SIZE))

    def coordinator(self, position: int) -> Pool:
        """The coordinator's own sessions on one shard; raises SqlError 55000 where it has no login."""
        login = self.shards[position].coordinator
        if login is None:
            raise SqlError("55000", f"the proxy has no coordinator login on shard {self.shards[position].address.number}")
        return self._pool("coordinator", login, position, replace(self._limits, size=CONTROL_POOL_SIZE))

    def _pool(self, kind: str, credentials: Credentials, position: int, limits: PoolLimits) -> Pool:
        key = (kind, credentials.user, position)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(self.shards[position].address, credentials, limits)
        return pool

    def control_settings(self, role: str) -> Mapping[str, str]:
        """Startup parameters of control and coordinator sessions; `role` is the login, whatever ALTER ROLE .. SET role says."""
        return {**CONTROL_SETTINGS, "role": role, "application_name": self.application_name}

    # --- what replicates the shards

    def check_durability(self, participants: Collection[int]) -> None:
        """Raises SqlError 55000 where `replicated` is asked for and a shard has no synchronous standby."""
        lacking = [number for number in sorted(participants) if self.standbys.get(number) != "synchronous"]
        if self.guarantees.replicated and lacking:
            raise SqlError(
                "55000",
                f"durability is replicated, and shards {', '.join(map(str, lacking))} have no synchronous standby, as last seen",
                hint="set synchronous_standby_names there and see that the standby is connected, or set durability to local",
            )

    def may_be_last_agent(self, decision: int) -> bool:
        """A failover to an asynchronous standby could lose the decision shard's part for good, while the others commit."""
        return self.guarantees.last_agent and self.standbys.get(decision) in ("none", "synchronous")

    # --- what the coordinator must know of the shards

    async def checked(self, number: int, timeout: float) -> tuple[ServerConnection, Pool]:
        """A coordinator's session that has just shown: primary, this cluster, this number, no older timeline than seen before.

        Raises SqlError or LinkLost; the caller gives the connection back to the pool that comes with it.
        """
        position = self.position(number)
        pool = self.coordinator(position)
        connection = await pool.acquire(self.control_settings(pool.user))
        try:
            await connection.identify(timeout)
            await self._check_row(connection, number, timeout)
            if connection.timeline < self._timelines.get(number, 0):
                raise SqlError("08001", f"shard {number} answers on an older timeline than before: an old primary")
            self._timelines[number] = connection.timeline
        except (SqlError, LinkLost):
            pool.discard(connection)
            raise
        except BaseException:
            pool.discard(connection)
            raise
        return connection, pool

    async def _check_row(self, connection: ServerConnection, number: int, timeout: float) -> None:
        result = await connection.query("SELECT cluster, number, epoch FROM pgshepherd.shard", timeout)
        if result.error is not None:
            raise result.error
        if len(result.rows) != 1 or result.rows[0][:2] != (self.cluster_id, str(number)):
            raise SqlError("08001", f"shard {number} does not hold the identity of this cluster", hint="run pgshepherd check")
        self._epochs[number] = int(result.rows[0][2] or 0)

    async def epoch(self, number: int, timeout: float) -> int:
        """The shard's epoch as last read; asks once if it was never read."""
        if number not in self._epochs:
            connection, pool = await self.checked(number, timeout)
            pool.release(connection)
        return self._epochs[number]

    def forget_epoch(self, number: int) -> None:
        """It was superseded: the next transaction asks anew."""
        self._epochs.pop(number, None)

    async def refresh_epochs(self, timeout: float) -> None:
        """Read every shard's epoch; a shard that can't be asked keeps its old one."""
        for shard in self.shards:
            try:
                connection, pool = await self.checked(shard.address.number, timeout)
            except (SqlError, LinkLost) as error:
                log.warning("epoch of shard %d not refreshed: %s", shard.address.number, error)
            else:
                pool.release(connection)

    async def keep(self) -> None:
        """Owner of the periodic work: close idle connections, refresh epochs; runs until cancelled."""
        refreshed = 0.0
        loop = asyncio.get_running_loop()
        while True:
            for pool in tuple(self._pools.values()):
                pool.close_idle()
            if self.cluster_id and loop.time() - refreshed > EPOCH_REFRESH:
                refreshed = loop.time()
                await self.refresh_epochs(5.0)
            await asyncio.sleep(1.0)

    def close(self) -> None:
        """Close every idle connection."""
        for pool in self._pools.values():
            pool.close_idle(everything=True)

    def usage(self) -> dict[int, int]:
        """Open connections by shard number."""
        totals = {shard.address.number: 0 for shard in self.shards}
        for (_, _, position), pool in self._pools.items():
            totals[self.shards[position].address.number] += pool.open
        return totals
