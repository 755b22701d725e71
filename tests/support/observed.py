"""Observations for tests of the pure core: healthy by default, so that a test names only what is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from shardoperator.models.observation import (
    Identity,
    PreparedTransaction,
    Problem,
    ProxyObservation,
    RecoveryReport,
    ShardObservation,
)
from shardoperator.models.spec import ShardedCluster
from shardoperator.reconcile.inputs import Inputs
from shardproxy.twophase.evidence import TransactionClass

CLUSTER_ID = "00c0ffee00c0ffee"
HASH = "0123456789abcdef"


def cluster(*, annotations: dict[str, str] | None = None, deleted: bool = False, **spec: Any) -> ShardedCluster:
    """`spec` replaces whole keys of the manifest's spec."""
    names = [f"shop-{number}" for number in range(2)]
    body = {
        "database": "shop",
        "shards": [
            {"name": name, "host": f"{name}.example", "database": "shop", "credentialsSecretRef": {"name": "recovery"}}
            for name in names
        ],
        "users": [{"name": "app", "passwordSecretRef": {"name": "app"}}],
        "shardedTables": [{"column": "customer_id"}],
        "proxy": {"replicas": 2, "slotsPerShard": 10},
        **spec,
    }
    metadata = {
        "name": "shop",
        "annotations": annotations or {},
        "deletionTimestamp": "2026-01-01T00:00:00Z" if deleted else None,
    }
    return ShardedCluster.model_validate(
        {"apiVersion": "pgshepherd.io/v1alpha1", "kind": "ShardedCluster", "metadata": metadata, "spec": body}
    )


def identity(number: int, /, **changes: Any) -> Identity:
    """The row of an adopted shard."""
    return replace(Identity(CLUSTER_ID, f"shop-{number}", number, (0, 1), 1000 + number, 1, 0), **changes)


def shard(number: int = 0, /, **changes: Any) -> ShardObservation:
    """A shard that is as it must be."""
    healthy = ShardObservation(
        f"shop-{number}", number, reachable=True, version=180000, system_identifier=1000 + number, database_oid=16384, timeline=1,
        max_prepared_transactions=100, pending_restart=False, installed=True, identity=identity(number),
    )  # fmt: skip
    return replace(healthy, **changes)


def down(number: int, reason: str = "Timeout") -> ShardObservation:
    """A shard that could not be looked at."""
    name = f"shop-{number}"
    return ShardObservation(name, number, reachable=False, reason=reason, message=f"shard {name}: {reason}, do something")


def fresh(number: int = 0, /, **changes: Any) -> ShardObservation:
    """Installed, but not adopted."""
    return shard(number, identity=None, **changes)


def lacking(number: int, reason: str) -> ShardObservation:
    """A shard with a problem."""
    return shard(number, problems=(Problem(reason, f"shard shop-{number}: {reason}", "GRANT SOMETHING;"),))


def proxies(
    ready: int = 2, *, desired: int = 2, config_hash: str = HASH, reason: str = "", message: str = ""
) -> ProxyObservation:
    """Running proxies."""
    return ProxyObservation(desired, ready, config_hash, reason, message)


def prepared(kind: TransactionClass, age: float, shard: int = 0, **changes: Any) -> PreparedTransaction:
    """One prepared transaction."""
    gid = f"gid-{kind.value}-{age:g}"
    return replace(PreparedTransaction(shard, gid, "app", "2026-01-01T00:00:00Z", age, "shop", kind), **changes)


def report(*transactions: PreparedTransaction, **changes: Any) -> RecoveryReport:
    """One pass of recovery over two shards."""
    return replace(RecoveryReport(transactions, scanned=frozenset({0, 1})), **changes)


def inputs(*shards: ShardObservation, of: ShardedCluster | None = None, **changes: Any) -> Inputs:
    """All is well, and proxies run, unless something else is said."""
    healthy = Inputs(
        of or cluster(), shards or (shard(0), shard(1)), instances=3, proxy=proxies(), report=report(), desired_hash=HASH
    )
    return replace(healthy, **changes)
