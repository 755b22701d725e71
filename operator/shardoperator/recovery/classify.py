"""Sorting what a scan found: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardoperator.models.observation import PreparedTransaction
from shardoperator.shards.scan import Sighting
from shardproxy.twophase.evidence import TransactionClass


@dataclass(frozen=True)
class Group:
    """All parts of one transaction of ours that were seen, as far as one role owns them: whose record counts depends on it."""

    transaction: tuple[str, str, int, int, int]
    owner: str
    parts: tuple[Sighting, ...]

    @property
    def txn(self) -> str:
        """32 hex digits."""
        return self.transaction[1]

    @property
    def key(self) -> tuple[object, ...]:
        """Tells it from every other."""
        return (self.transaction, self.owner)

    @property
    def age(self) -> float:
        """Of its oldest part, in seconds."""
        return max(part.age for part in self.parts)


def is_ours(sighting: Sighting, cluster: str) -> bool:
    """A GID of this cluster, found on the shard that it names."""
    return sighting.parsed is not None and (sighting.parsed.cluster, sighting.parsed.shard) == (cluster, sighting.shard)


def groups(sightings: Sequence[Sighting], cluster: str) -> list[Group]:
    """Ours by transaction, oldest first."""
    by_key: dict[tuple[tuple[str, str, int, int, int], str], list[Sighting]] = {}
    for sighting in sightings:
        if is_ours(sighting, cluster) and sighting.parsed is not None:
            by_key.setdefault((sighting.parsed.transaction, sighting.owner), []).append(sighting)
    found = [Group(transaction, owner, tuple(parts)) for (transaction, owner), parts in by_key.items()]
    return sorted(found, key=lambda group: -group.age)


def described(
    sighting: Sighting,
    transaction_class: TransactionClass,
    reason: str,
    evidence: tuple[str, ...] = (),
    blocks: tuple[str, ...] = (),
) -> PreparedTransaction:
    """A sighting with its class, for people."""
    return PreparedTransaction(
        shard=sighting.shard,
        gid=sighting.gid,
        owner=sighting.owner,
        prepared_at=sighting.prepared_at,
        age=sighting.age,
        database=sighting.database,
        transaction_class=transaction_class,
        reason=reason,
        xid_age=sighting.xid_age,
        blocks=blocks,
        evidence=evidence,
    )


def foreign(sightings: Sequence[Sighting], cluster: str) -> list[PreparedTransaction]:
    """Everything that is not ours: it is shown, and never touched."""
    return [
        described(sighting, TransactionClass.FOREIGN, _why_foreign(sighting, cluster))
        for sighting in sightings
        if not is_ours(sighting, cluster)
    ]


def _why_foreign(sighting: Sighting, cluster: str) -> str:
    if sighting.parsed is None:
        return "not made by pgshepherd: its own transaction manager must finish it"
    if sighting.parsed.cluster != cluster:
        return f"made by the pgshepherd cluster {sighting.parsed.cluster}: its own recovery finishes it"
    return f"names shard {sighting.parsed.shard}, but was found on shard {sighting.shard}: a copy, never touched"
