"""ShardedCluster.status: what users and tools read, and what the next operator must know of the last one.

Invariant: the part that goes into the object holds nothing that changes while nothing happens (no age, no live transaction), so no
status is written when nothing changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shardoperator.models.conditions import Condition
from shardoperator.models.observation import PreparedTransaction, ProxyObservation, RecoveryReport, ShardObservation
from shardproxy.twophase.evidence import TransactionClass

LISTED_TRANSACTIONS = 20
"""Oldest prepared transactions that a status holds."""
MESSAGE, TEXT, TEXTS = 4096, 512, 16
"""Characters of a condition's message and of any other text, and texts in one list: with all of them the object still is below what
the API server stores, so that no status is ever refused for its size."""

_IN_DOUBT = frozenset({TransactionClass.IN_DOUBT, TransactionClass.RESURRECTED, TransactionClass.UNREACHABLE})
_FLEETING = frozenset({TransactionClass.LIVE, TransactionClass.FOREIGN, TransactionClass.COMMITTED, TransactionClass.ABORTED})
"""Classes that a busy cluster always has some of, and that nobody has to do anything about."""


@dataclass(frozen=True)
class Memory:
    """What outlives an operator: read back from the object's status."""

    cluster_id: str | None = None
    conditions: tuple[Condition, ...] = ()
    numbers: Mapping[str, int] = field(default_factory=dict)
    """Numbers by shard name."""
    adopted: frozenset[str] = frozenset()
    """Names of the shards that have been seen to belong to the cluster."""


def remembered(status: Mapping[str, Any]) -> Memory:
    """From a status as it is in the object; what does not fit is forgotten, never an error."""
    conditions = [one for one in status.get("conditions") or [] if isinstance(one, Mapping)]
    shards = [one for one in status.get("shards") or [] if isinstance(one, Mapping)]
    return Memory(
        status.get("clusterID"),
        tuple(
            Condition(
                str(one.get("type")),
                str(one.get("status")),
                str(one.get("reason")),
                str(one.get("message", "")),
                int(one.get("observedGeneration") or 0),
                str(one.get("lastTransitionTime", "")),
            )
            for one in conditions
        ),
        {str(one["name"]): int(one["number"]) for one in shards if "name" in one and "number" in one},
        frozenset(str(one["name"]) for one in shards if one.get("adopted") and "name" in one),
    )


@dataclass(frozen=True)
class Status:
    """The whole, after one visit."""

    name: str
    namespace: str
    observed_generation: int
    cluster_id: str | None
    conditions: tuple[Condition, ...]
    shards: tuple[ShardObservation, ...] = ()
    report: RecoveryReport | None = None
    proxy: ProxyObservation | None = None
    adopted: frozenset[str] = frozenset()
    """Names of the shards that have been seen to belong to the cluster, now or before."""
    selector: str = ""
    """By which the proxies are found: for the scale subresource."""

    def condition(self, kind: str) -> Condition:
        """The condition of that type."""
        return next(condition for condition in self.conditions if condition.type == kind)

    @property
    def memory(self) -> Memory:
        """For the next visit."""
        return Memory(self.cluster_id, self.conditions, {shard.name: shard.number for shard in self.shards}, self.adopted)

    def to_json(self) -> dict[str, Any]:
        """For one machine: all that is known now, ages included."""
        oldest = sorted(self._transactions(), key=lambda one: -one.age)[:LISTED_TRANSACTIONS]
        listed = [transaction_json(one) for one in oldest]
        return {"name": self.name, "namespace": self.namespace, **self.to_resource(), "preparedTransactions": listed}

    def to_resource(self) -> dict[str, Any]:
        """As in the object."""
        stuck = sorted((one for one in self._transactions() if one.transaction_class not in _FLEETING), key=_by_time)
        doubtful = sum(one.transaction_class in _IN_DOUBT for one in self._transactions())
        reachable = sum(shard.reachable for shard in self.shards)
        proxy = self.proxy or ProxyObservation()
        return {
            "observedGeneration": self.observed_generation,
            "clusterID": self.cluster_id,
            "conditions": [one.to_json() | {"message": _cut(one.message, MESSAGE)} for one in self.conditions],
            "replicas": proxy.desired,
            "selector": self.selector,
            "proxySummary": f"{proxy.ready}/{proxy.desired}",
            "shardsSummary": f"{reachable}/{len(self.shards)}",
            "inDoubt": doubtful,
            "configHash": proxy.config_hash,
            "shards": [_shard(shard, adopted=shard.name in self.adopted) for shard in self.shards],
            "preparedTransactions": [_short_json(one) for one in stuck[:LISTED_TRANSACTIONS]],
        }

    def _transactions(self) -> Sequence[PreparedTransaction]:
        return self.report.transactions if self.report is not None else ()


def _by_time(one: PreparedTransaction) -> tuple[str, str]:
    return one.prepared_at, one.gid


def _shard(shard: ShardObservation, *, adopted: bool) -> dict[str, Any]:
    findings = [{"reason": problem.reason, "message": _cut(problem.message)} for problem in shard.problems[:TEXTS]]
    return {
        "name": shard.name,
        "number": shard.number,
        "adopted": adopted,
        "reachable": shard.reachable,
        "reason": shard.reason,
        "message": _cut(shard.message),
        "version": shard.version,
        "systemIdentifier": str(shard.system_identifier) if shard.system_identifier is not None else None,
        "timeline": shard.timeline,
        "maxPreparedTransactions": shard.max_prepared_transactions,
        "findings": findings,
    }


def _stuck_json(one: PreparedTransaction) -> dict[str, Any]:
    """What stays the same while it is stuck."""
    return {
        "gid": one.gid,
        "shard": one.shard,
        "class": one.transaction_class.value,
        "preparedAt": one.prepared_at,
        "owner": one.owner,
        "database": one.database,
        "reason": one.reason,
        "blocks": list(one.blocks),
        "evidence": list(one.evidence),
    }


def _short_json(one: PreparedTransaction) -> dict[str, Any]:
    return _stuck_json(one) | {"reason": _cut(one.reason), "blocks": _few(one.blocks), "evidence": _few(one.evidence)}


def _cut(text: str, length: int = TEXT) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _few(texts: Sequence[str]) -> list[str]:
    kept = [_cut(text) for text in texts[:TEXTS]]
    return kept if len(texts) <= TEXTS else [*kept[:-1], f"and {len(texts) - TEXTS + 1} more"]


def transaction_json(one: PreparedTransaction) -> dict[str, Any]:
    """One prepared transaction, for `-o json`."""
    return _stuck_json(one) | {"ageSeconds": round(one.age, 3), "xidAge": one.xid_age}
