"""Every name that others may rely on: the API group, labels, annotations, children, ports."""

from __future__ import annotations

GROUP = "pgshepherd.io"
API_VERSION = f"{GROUP}/v1alpha1"
KIND = "ShardedCluster"

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
