"""Everything that one reconcile pass knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shardoperator.models.observation import ProxyObservation, RecoveryReport, ShardObservation
from shardoperator.models.spec import ShardedCluster
from shardoperator.names import PAUSED

HEADROOM = 4
"""Slots beyond the proxies' budgets: for orphans that wait for recovery, and for people."""


@dataclass(frozen=True)
class Inputs:
    """Of one cluster at one moment."""

    cluster: ShardedCluster
    shards: tuple[ShardObservation, ...]
    """By position."""
    instances: int
    """Proxies that may run at a time, surge included."""
    proxy: ProxyObservation | None = None
    """None: there is none yet."""
    report: RecoveryReport | None = None
    """None: recovery has not run yet."""
    missing_secrets: tuple[str, ...] = ()
    known_numbers: Mapping[str, int] | None = None
    """Numbers by shard name as of the last status."""
    adopted: frozenset[str] = frozenset()
    """Names of the shards that were seen to belong to the cluster before."""
    desired_hash: str = ""
    """Of the configuration that the proxies shall serve."""
    last_cluster_id: str | None = None
    """The cluster id of the last status."""
    invalid: str = ""
    """Why the spec that stands in the object can't be used; `cluster` is then the last one that could."""

    def needed_slots(self, position: int) -> int:
        """max_prepared_transactions that the shard's server must have: the proxies' budgets for all our shards on it."""
        own = self.shards[position].system_identifier
        sharing = sum(1 for shard in self.shards if own is not None and shard.system_identifier == own)
        return self.cluster.spec.proxy.slots_per_shard * self.instances * max(1, sharing) + HEADROOM

    @property
    def cluster_id(self) -> str | None:
        """As it stands on the shards; None if it does not stand on all of them, or not the same."""
        found = {shard.identity.cluster if shard.identity is not None else None for shard in self.shards}
        return next(iter(found)) if len(found) == 1 else None

    @property
    def paused(self) -> bool:
        """By annotation."""
        return self.cluster.metadata.says(PAUSED)

    @property
    def deleting(self) -> bool:
        """Somebody has deleted the object; it is there until it is let go."""
        return self.cluster.metadata.deletion_timestamp is not None
