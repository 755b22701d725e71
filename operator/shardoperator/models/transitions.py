"""What may not change from one spec of a cluster to the next: where rows and commit records are found depends on it.

Invariant: the transition rules of crds/shardedclusters.yaml say the same; here they hold where there is no API server.
"""

from __future__ import annotations

from collections.abc import Mapping

from shardoperator.models.spec import Spec

FIXED_DATABASE = "the database may not change"
FIXED_CLUSTER_ID = "clusterID may not change once it is set"
FIXED_NUMBER = "a shard's number is fixed for ever"
NOT_REUSED = "a shard's number is never another shard's"


def forbidden_changes(old: Spec, new: Spec) -> list[str]:
    """One line for each, with its place; none: the change is allowed."""
    changes = []
    if new.database != old.database:
        changes.append(f"spec.database: {FIXED_DATABASE}; it was {old.database}")
    if old.cluster_id not in (None, new.cluster_id):
        changes.append(f"spec.clusterID: {FIXED_CLUSTER_ID}; it was {old.cluster_id}")
    return changes + [f"spec.shards: {move}" for move in moved_numbers(old.numbers, new.numbers)]


def moved_numbers(old: Mapping[str, int], new: Mapping[str, int]) -> list[str]:
    """Shards with another number than before, and numbers with another shard."""
    holders = {number: name for name, number in old.items()}
    moves = []
    for name, number in new.items():
        if name in old and old[name] != number:
            moves.append(f"shard {name} was number {old[name]} and can't become {number}: {FIXED_NUMBER}")
        if holders.get(number, name) != name:
            moves.append(f"number {number} was shard {holders[number]}'s and can't become {name}'s: {NOT_REUSED}")
    return moves
