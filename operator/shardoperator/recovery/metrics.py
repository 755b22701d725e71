"""Prometheus metrics of recovery: by namespace, cluster, shard and class; never a GID, SQL or a user's text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from shardoperator.models.observation import RecoveryReport
from shardoperator.shards.connect import ShardTarget
from shardproxy.twophase.evidence import TransactionClass, Verdict

_CLUSTER = ("namespace", "cluster")
_SHARD = (*_CLUSTER, "shard")
_CLASS = (*_SHARD, "class")


class RecoveryMetrics:
    """Of all clusters of one process."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.count = Gauge("pgshepherd_prepared_transactions", "Prepared transactions.", _CLASS, registry=registry)
        self.age = Gauge(
            "pgshepherd_prepared_transaction_oldest_age_seconds",
            "Age of the oldest prepared transaction, by the shard's clock.",
            _CLASS,
            registry=registry,
        )
        self.success = Gauge(
            "pgshepherd_scan_last_success_timestamp_seconds", "When the shard was last scanned.", _SHARD, registry=registry
        )
        self.failures = Counter("pgshepherd_scan_failures", "Scans that failed.", _SHARD, registry=registry)
        self.resolutions = Counter(
            "pgshepherd_resolutions", "Parts that recovery finished.", (*_CLUSTER, "outcome"), registry=registry
        )
        self.visit_failures = Counter(
            "pgshepherd_visit_failures", "Visits that ended by a fault of the operator's own.", _CLUSTER, registry=registry
        )

    def of(self, namespace: str, cluster: str) -> ClusterMetrics:
        """One cluster's share."""
        return ClusterMetrics(self, namespace, cluster)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)


@dataclass(frozen=True)
class ClusterMetrics:
    """The metrics of one cluster."""

    metrics: RecoveryMetrics
    namespace: str = "default"
    cluster: str = ""

    def record(self, report: RecoveryReport, targets: Sequence[ShardTarget]) -> None:
        """The state after one pass; what could not be scanned keeps its old numbers and an old time of success."""
        for target in targets:
            place = (self.namespace, self.cluster, target.name)
            if target.number not in report.scanned:
                self.metrics.failures.labels(*place).inc()
                continue
            self.metrics.success.labels(*place).set(time.time())
            for one in TransactionClass:
                ages = [each.age for each in report.transactions if (each.shard, each.transaction_class) == (target.number, one)]
                self.metrics.count.labels(*place, one.value).set(len(ages))
                self.metrics.age.labels(*place, one.value).set(max(ages, default=0.0))

    def acted(self, verdict: Verdict) -> None:
        """Count what was done."""
        for _ in verdict.acted:
            self.metrics.resolutions.labels(self.namespace, self.cluster, verdict.transaction_class.value).inc()

    def visit_failed(self) -> None:
        """A fault of the operator's own."""
        self.metrics.visit_failures.labels(self.namespace, self.cluster).inc()

    def forget(self) -> None:
        """The cluster is gone: nobody shall be alerted by its last numbers."""
        mine = {"namespace": self.namespace, "cluster": self.cluster}
        for metric in (self.metrics.count, self.metrics.age, self.metrics.success, self.metrics.failures):
            metric.remove_by_labels(mine)
