"""All that Kubernetes runs for a cluster: Secret, Service, PodDisruptionBudget, Deployment."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from shardoperator.models.spec import ShardedCluster
from shardoperator.names import SQL_PORT, config_name, proxy_name
from shardoperator.resources.config import RenderedConfig
from shardoperator.resources.deployment import deployment
from shardoperator.resources.ownership import Resource, child, selector


@dataclass(frozen=True)
class ChildKind:
    """A kind of child, and where the API has it."""

    api_version: str
    kind: str
    plural: str


SECRET = ChildKind("v1", "Secret", "secrets")
SERVICE = ChildKind("v1", "Service", "services")
BUDGET = ChildKind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
DEPLOYMENT = ChildKind("apps/v1", "Deployment", "deployments")


def children(
    cluster: ShardedCluster, config: RenderedConfig, image: str, *, alive_routing: str | None
) -> list[tuple[ChildKind, Resource]]:
    """In the order in which they are applied: the Secret before the pods that mount it."""
    return [
        (SECRET, _secret(cluster, config)),
        (SERVICE, _service(cluster)),
        (BUDGET, _budget(cluster)),
        (DEPLOYMENT, deployment(cluster, config, image, alive_routing=alive_routing)),
    ]


def child_names(cluster: str) -> list[tuple[ChildKind, str]]:
    """What is to be removed with a cluster, pods first."""
    name = proxy_name(cluster)
    return [(DEPLOYMENT, name), (BUDGET, name), (SERVICE, name), (SECRET, config_name(cluster))]


def _secret(cluster: ShardedCluster, config: RenderedConfig) -> Resource:
    """All three files: users.toml and pgshepherd.toml hold passwords."""
    head = child(cluster, SECRET.api_version, SECRET.kind, config_name(cluster.metadata.name))
    data = {name: base64.b64encode(text.encode()).decode() for name, text in config.files.items()}
    return head | {"type": "Opaque", "data": data}


def _service(cluster: ShardedCluster) -> Resource:
    ports = [{"name": "sql", "port": cluster.spec.proxy.port, "targetPort": SQL_PORT, "protocol": "TCP"}]
    spec = {"type": "ClusterIP", "selector": selector(cluster.metadata.name), "ports": ports}
    return child(cluster, SERVICE.api_version, SERVICE.kind, proxy_name(cluster.metadata.name)) | {"spec": spec}


def _budget(cluster: ShardedCluster) -> Resource:
    """A drain of nodes takes one proxy at a time."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": selector(cluster.metadata.name)}}
    return child(cluster, BUDGET.api_version, BUDGET.kind, proxy_name(cluster.metadata.name)) | {"spec": spec}
