"""The proxy's Prometheus metrics, in a registry of their own.

Invariant: labels are shard numbers, steps and outcomes; never SQL, GIDs, user names or addresses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_STEPS = {"Prepare": "prepare", "CommitPrepared": "commit", "RollbackPrepared": "rollback", "CloseReader": "close_reader"}
_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """One for each proxy process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.clients = Gauge("pgshepherd_proxy_clients", "Clients that are logged in.", registry=registry)
        self.servers = Gauge("pgshepherd_proxy_server_connections", "Open connections.", ["shard"], registry=registry)
        self.slots = Gauge("pgshepherd_proxy_slots_used", "Prepared-transaction slots in use.", ["shard"], registry=registry)
        self.outcomes = Counter(
            "pgshepherd_proxy_two_phase_transactions", "Cross-shard transactions by outcome.", ["outcome"], registry=registry
        )
        self.flight = Gauge("pgshepherd_proxy_two_phase_in_flight", "Cross-shard commits in flight.", registry=registry)
        self.steps = Histogram(
            "pgshepherd_proxy_two_phase_step_seconds",
            "Seconds for one step of the commit protocol on one shard.",
            ["step", "shard"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.losses = Counter("pgshepherd_proxy_losses", "Committed parts that a shard has lost.", registry=registry)
        self.non_atomic_commits = Counter(
            "pgshepherd_proxy_non_atomic_commits", "Commits on several shards, each for itself.", registry=registry
        )
        self.deadlock_victims = Counter(
            "pgshepherd_proxy_deadlock_victims", "Transactions cancelled in a distributed deadlock.", registry=registry
        )
        self.logins = Counter("pgshepherd_proxy_logins", "Client logins by outcome.", ["outcome"], registry=registry)

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Around one commit."""
        self.flight.inc()
        try:
            yield
        finally:
            self.flight.dec()

    @contextmanager
    def step(self, command: str, shard: int) -> Iterator[None]:
        """Around one command of the commit protocol; only the four that cost a round trip in every commit are timed."""
        name = _STEPS.get(command)
        started = time.perf_counter()
        try:
            yield
        finally:
            if name is not None:
                self.steps.labels(name, str(shard)).observe(time.perf_counter() - started)

    def outcome(self, outcome: str) -> None:
        """committed, aborted or unknown."""
        self.outcomes.labels(outcome).inc()

    def non_atomic(self) -> None:
        """Two-phase commit is off, and several shards were written."""
        self.non_atomic_commits.inc()

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)
