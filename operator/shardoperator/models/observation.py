"""What was seen of the world in one visit: frozen facts, no judgement.

Invariant: a fact that could not be read is None, never a default that looks healthy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shardproxy.config.models import Standbys
from shardproxy.twophase.evidence import TransactionClass


@dataclass(frozen=True)
class Identity:
    """The row of pgshepherd.shard."""

    cluster: str
    name: str
    number: int
    members: tuple[int, ...]
    system_identifier: int
    epoch: int
    retired: int


@dataclass(frozen=True)
class ShardObservation:
    """One shard, as its recovery login saw it."""

    name: str
    number: int
    reachable: bool
    reason: str = "Reachable"
    """A reason of ShardsReachable."""
    message: str = ""
    version: int | None = None
    """server_version_num."""
    system_identifier: int | None = None
    database_oid: int | None = None
    timeline: int | None = None
    max_prepared_transactions: int | None = None
    pending_restart: bool | None = None
    standbys: Standbys = "unknown"
    """What replicates it, at best."""
    installed: bool | None = None
    """Whether the schema pgshepherd is there, as it must be."""
    identity: Identity | None = None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Problem:
    """Something that keeps a shard from its work, with what to do about it."""

    reason: str
    """A reason of TwoPhaseReady or of Degraded."""
    message: str
    remedy: str = ""
    """SQL or a setting, ready to be used."""


@dataclass(frozen=True)
class ProxyObservation:
    """The proxies."""

    desired: int = 0
    ready: int = 0
    config_hash: str = ""
    """Of the configuration that they serve; empty if unknown."""
    reason: str = ""
    """A reason of ProxyAvailable, where more is known than that proxies are missing."""
    message: str = ""


@dataclass(frozen=True)
class PreparedTransaction:
    """A prepared transaction on one shard, with what is known of it."""

    shard: int
    gid: str
    owner: str
    prepared_at: str
    """RFC 3339, UTC, by the shard's own clock."""
    age: float
    """Seconds, by the same clock."""
    database: str
    transaction_class: TransactionClass
    reason: str = ""
    xid_age: int = 0
    blocks: tuple[str, ...] = ()
    """Whom it keeps waiting: pid, and what the session is called."""
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecoveryReport:
    """One pass over all shards."""

    transactions: tuple[PreparedTransaction, ...] = ()
    failed: tuple[tuple[int, str], ...] = ()
    """Shards that could not be scanned, and why."""
    actions: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    """What was decided and could not be done, and why."""
    losses: tuple[str, ...] = ()
    scanned: frozenset[int] = field(default_factory=frozenset)

    def ours(self) -> tuple[PreparedTransaction, ...]:
        """All but the foreign ones."""
        return tuple(one for one in self.transactions if one.transaction_class is not TransactionClass.FOREIGN)
