"""ShardedCluster.status: what users and tools read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shardoperator.models.conditions import Condition
from shardoperator.models.observation import PreparedTransaction, RecoveryReport, ShardObservation

LISTED_TRANSACTIONS = 20
"""Oldest prepared transactions that a status holds."""


@dataclass(frozen=True)
class Status:
    """The whole, after one visit."""

    name: str
    namespace: str
    observed_generation: int
    cluster_id: str | None
    conditions: tuple[Condition, ...]
    shards: tuple[ShardObservation, ...]
    report: RecoveryReport | None

    def condition(self, kind: str) -> Condition:
        """The condition of that type."""
        return next(condition for condition in self.conditions if condition.type == kind)

    def to_json(self) -> dict[str, Any]:
        """As in the object."""
        transactions = self.report.transactions if self.report is not None else ()
        oldest = sorted(transactions, key=lambda one: -one.age)[:LISTED_TRANSACTIONS]
        return {
            "name": self.name,
            "namespace": self.namespace,
            "observedGeneration": self.observed_generation,
            "clusterID": self.cluster_id,
            "conditions": [condition.to_json() for condition in self.conditions],
            "shards": [_shard(shard) for shard in self.shards],
            "preparedTransactions": [transaction_json(one) for one in oldest],
        }


def _shard(shard: ShardObservation) -> dict[str, Any]:
    findings = [{"reason": problem.reason, "message": problem.message} for problem in shard.problems]
    return {
        "name": shard.name,
        "number": shard.number,
        "reachable": shard.reachable,
        "reason": shard.reason,
        "message": shard.message,
        "version": shard.version,
        "systemIdentifier": str(shard.system_identifier) if shard.system_identifier is not None else None,
        "timeline": shard.timeline,
        "maxPreparedTransactions": shard.max_prepared_transactions,
        "findings": findings,
    }


def transaction_json(one: PreparedTransaction) -> dict[str, Any]:
    """One prepared transaction, for `-o json`."""
    return {
        "gid": one.gid,
        "shard": one.shard,
        "class": one.transaction_class.value,
        "ageSeconds": round(one.age, 3),
        "owner": one.owner,
        "database": one.database,
        "xidAge": one.xid_age,
        "reason": one.reason,
        "blocks": list(one.blocks),
        "evidence": list(one.evidence),
    }
