"""Prometheus metrics of recovery: by namespace, cluster, shard and class; never a GID, SQL or a user's text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from shardoperator.models.observation import RecoveryReport
from shardoperator.shards.connect import ShardTarget
from shardproxy.twophase.evidence import TransactionClass, Verdict

_LABELS = ["namespace", "cluster", "shard", "class"]


@dataclass
class RecoveryMetrics:
    """Of one cluster."""

    namespace: str = "default"
    cluster: str = ""
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        """Make the metrics in the registry."""
        self._count = Gauge("pgshepherd_prepared_transactions", "Prepared transactions.", _LABELS, registry=self.registry)
        self._age = Gauge(
            "pgshepherd_prepared_transaction_oldest_age_seconds",
            "Age of the oldest prepared transaction, by the shard's clock.",
            _LABELS,
            registry=self.registry,
        )
        self._success = Gauge(
            "pgshepherd_scan_last_success_timestamp_seconds",
            "When the shard was last scanned.",
            ["namespace", "cluster", "shard"],
            registry=self.registry,
        )
        self._failures = Counter(
            "pgshepherd_scan_failures", "Scans that failed.", ["namespace", "cluster", "shard"], registry=self.registry
        )
        self._resolutions = Counter(
            "pgshepherd_resolutions", "Parts that recovery finished.", ["namespace", "cluster", "outcome"], registry=self.registry
        )

    def record(self, report: RecoveryReport, targets: Sequence[ShardTarget]) -> None:
        """The state after one pass; what could not be scanned keeps its old numbers and an old time of success."""
        for target in targets:
            place = (self.namespace, self.cluster, target.name)
            if target.number not in report.scanned:
                self._failures.labels(*place).inc()
                continue
            self._success.labels(*place).set(time.time())
            for one in TransactionClass:
                ages = [each.age for each in report.transactions if (each.shard, each.transaction_class) == (target.number, one)]
                self._count.labels(*place, one.value).set(len(ages))
                self._age.labels(*place, one.value).set(max(ages, default=0.0))

    def acted(self, verdict: Verdict) -> None:
        """Count what was done."""
        for _ in verdict.acted:
            self._resolutions.labels(self.namespace, self.cluster, verdict.transaction_class.value).inc()

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)
