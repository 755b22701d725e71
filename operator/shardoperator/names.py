"""Every name that others may rely on: the API group, labels, annotations, children, ports."""

from __future__ import annotations

GROUP = "pgshepherd.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "ShardedCluster"
PLURAL = "shardedclusters"

FIELD_MANAGER = "pgshepherd"
FINALIZER = f"{GROUP}/in-doubt-guard"
LEASE = "pgshepherd-operator"

PAUSED = f"{GROUP}/paused"
"""Annotation of a ShardedCluster: `true` stops reconciliation; what is prepared is watched, and not resolved."""
FORCE_DELETE = f"{GROUP}/force-delete"
"""Annotation of a ShardedCluster: `true` lets it go although something of ours may still be prepared on a shard."""
CONFIG_HASH = f"{GROUP}/config-hash"
"""Annotation of a proxy's pod: another value rolls the proxies."""
ROUTING_HASH = f"{GROUP}/routing-hash"
"""Annotation of a proxy's pod: two values are never alive together."""

CLUSTER_LABEL = f"{GROUP}/cluster"

SQL_PORT = 6432
METRICS_PORT = 9090
HEALTH_PORT = 8080

APPLICATION = "pgshepherd"
"""First part of application_name on the shards."""


def proxy_name(cluster: str) -> str:
    """Deployment, Service and PodDisruptionBudget of a cluster's proxies."""
    return f"{cluster}-proxy"


def config_name(cluster: str) -> str:
    """The Secret with the proxy's three files."""
    return f"{cluster}-proxy-config"
