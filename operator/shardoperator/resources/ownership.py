"""What every child carries: labels, its owner, and the names of its kind.

Invariant: the labels in a selector never change in a cluster's life; Kubernetes lets no selector change.
"""

from __future__ import annotations

from typing import Any

from shardoperator.models.spec import ShardedCluster
from shardoperator.names import API_VERSION, CLUSTER_LABEL, KIND

Resource = dict[str, Any]
"""An object as the Kubernetes API takes it."""


def selector(cluster: str) -> dict[str, str]:
    """The labels by which the proxies of a cluster are found."""
    return {"app.kubernetes.io/name": "pgshepherd", "app.kubernetes.io/component": "proxy", CLUSTER_LABEL: cluster}


def selector_text(cluster: str) -> str:
    """The same as a query, for the scale subresource and for lists."""
    return ",".join(f"{key}={value}" for key, value in selector(cluster).items())


def child(cluster: ShardedCluster, api_version: str, kind: str, name: str) -> Resource:
    """The head of a child: found by its labels, and collected with its owner."""
    metadata = cluster.metadata
    labels = selector(metadata.name) | {
        "app.kubernetes.io/instance": metadata.name,
        "app.kubernetes.io/managed-by": "pgshepherd",
    }
    owner = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": metadata.name,
        "uid": metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    head = {"name": name, "namespace": metadata.namespace, "labels": labels, "ownerReferences": [owner]}
    return {"apiVersion": api_version, "kind": kind, "metadata": head}
