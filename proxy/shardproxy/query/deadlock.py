"""The guard against distributed deadlocks among the sessions of this proxy.

No Postgres sees a cycle over two shards.  Sessions that have waited for `deadlock_timeout` are asked about with pg_blocking_pids; a
cycle of waits, each of which has lasted through the whole look, is a deadlock, and its youngest transaction is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shardproxy.backend.cluster import Cluster
from shardproxy.backend.connection import ServerConnection
from shardproxy.errors import LinkLost, SqlError
from shardproxy.metrics import Metrics
from shardproxy.query.state import CANCEL_TIMEOUT, SessionState

log = logging.getLogger("pgshepherd.proxy.deadlock")


@dataclass(frozen=True)
class Waiter:
    """A session that waits on one shard; `busy_since` tells one wait from the next on the same connection."""

    state: SessionState
    connection: ServerConnection
    busy_since: float

    @property
    def still(self) -> bool:
        """Whether it is the same wait as before."""
        return self.connection.busy_since == self.busy_since


def find_cycle(edges: Mapping[int, frozenset[int]]) -> list[int] | None:
    """A cycle in "waits for", as a list of its members; None if there is none."""
    finished: set[int] = set()
    for start in edges:
        path: list[int] = []
        found = _visit(start, edges, path, finished)
        if found is not None:
            return found
    return None


def _visit(node: int, edges: Mapping[int, frozenset[int]], path: list[int], finished: set[int]) -> list[int] | None:
    if node in path:
        return path[path.index(node) :]
    if node in finished:
        return None
    path.append(node)
    for other in sorted(edges.get(node, frozenset())):
        found = _visit(other, edges, path, finished)
        if found is not None:
            return found
    path.pop()
    finished.add(node)
    return None


class DeadlockGuard:
    """Looks at all sessions of this proxy every half `deadlock_timeout` (seconds)."""

    def __init__(self, cluster: Cluster, sessions: Iterable[SessionState], timeout: float, metrics: Metrics) -> None:
        self._cluster = cluster
        self._sessions = sessions
        self._timeout = timeout
        self._metrics = metrics

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._timeout / 2)
            waiters = self._waiters()
            if any(len(self._joined(waiter)) > 1 for waiter in waiters) and len(waiters) > 1:
                await self._look(waiters)

    def _joined(self, waiter: Waiter) -> list[ServerConnection]:
        transaction = waiter.state.transaction
        return [part.link.connection for part in transaction.joined.values()] if transaction is not None else []

    def _waiters(self) -> list[Waiter]:
        """Sessions in a transaction whose server has not answered for `deadlock_timeout`."""
        limit = time.monotonic() - self._timeout
        return [
            Waiter(state, connection, connection.busy_since)
            for state in tuple(self._sessions)
            if state.transaction is not None
            for connection in (part.link.connection for part in state.transaction.joined.values())
            if connection.busy_since is not None and connection.busy_since < limit
        ]

    async def _look(self, waiters: list[Waiter]) -> None:
        holders = {
            (part.link.connection.address.number, part.link.connection.pid): id(state)
            for state in tuple(self._sessions)
            if state.transaction is not None
            for part in state.transaction.joined.values()
        }
        edges: dict[int, frozenset[int]] = {}
        for waiter in waiters:
            blockers = await self._blockers(waiter.connection)
            found = frozenset(holders[one] for one in blockers if one in holders)
            edges[id(waiter.state)] = edges.get(id(waiter.state), frozenset()) | found - {id(waiter.state)}
        cycle = find_cycle(edges)
        if cycle is None:
            return
        members = [waiter for waiter in waiters if id(waiter.state) in cycle]
        if all(waiter.still for waiter in members):
            await self._cancel(max(members, key=_youth))

    async def _blockers(self, connection: ServerConnection) -> list[tuple[int, int]]:
        number = connection.address.number
        try:
            pool = self._cluster.coordinator(self._cluster.position(number))
            asking = await pool.acquire(self._cluster.control_settings(pool.user))
        except SqlError as error:
            log.warning("shard %d could not be asked who blocks whom: %s", number, error)
            return []
        try:
            result = await asking.query(f"SELECT unnest(pg_catalog.pg_blocking_pids({connection.pid}))", 5.0)
        except LinkLost as error:
            log.warning("shard %d could not be asked who blocks whom: %s", number, error)
            return []
        finally:
            pool.release(asking)
        return [(number, int(row[0])) for row in result.rows if row[0] is not None]

    async def _cancel(self, victim: Waiter) -> None:
        log.warning("distributed deadlock: cancelling the youngest transaction, on shard %d", victim.connection.address.number)
        victim.state.deadlock_victim = True
        if await victim.connection.cancel(victim.busy_since, CANCEL_TIMEOUT):
            self._metrics.deadlock_victims.inc()
        else:
            victim.state.deadlock_victim = False
            log.warning("the victim was not cancelled: its wait has ended, or the shard can't be reached")


def _youth(waiter: Waiter) -> float:
    return waiter.state.transaction.started if waiter.state.transaction is not None else 0.0
