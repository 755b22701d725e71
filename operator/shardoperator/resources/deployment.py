"""The proxies of a cluster as a Deployment.

Invariant: the pod is as small a target as a pod can be (Pod Security "restricted", a read-only root, no token of the API), and two
routing maps are never alive together: a change of the routing hash stops all proxies before it starts the new ones, and an old pod
that restarts meanwhile refuses the new files.
"""

from __future__ import annotations

from typing import Any

from shardoperator.models.spec import ShardedCluster
from shardoperator.names import CONFIG_HASH, HEALTH_PORT, METRICS_PORT, ROUTING_HASH, SQL_PORT, config_name, proxy_name
from shardoperator.resources.config import RenderedConfig
from shardoperator.resources.ownership import Resource, child, selector
from shardproxy.config.environment import ROUTING_VARIABLE

CONFIG_DIRECTORY = "/etc/pgshepherd"
"""Where the three files are in a pod."""
COMMAND = (
    "pgshepherd",
    "proxy",
    "--config",
    f"{CONFIG_DIRECTORY}/pgdog.toml",
    "--users",
    f"{CONFIG_DIRECTORY}/users.toml",
)
USER = 65532
"""Who runs in a pod: nobody who owns anything."""
ENDPOINTS_DELAY = 3
"""Seconds between the end of a pod's membership in the Service and its SIGTERM, so that no client is sent to one that drains."""
GRACE_PERIOD = 75
"""Seconds from SIGTERM to SIGKILL: more than the proxy's shutdown_timeout, in which it finishes what was decided."""


def deployment(cluster: ShardedCluster, config: RenderedConfig, image: str, *, alive_routing: str | None) -> Resource:
    """`alive_routing` is the routing hash of the pods that may be alive now; None if there are none."""
    barrier = alive_routing not in (None, config.routing_hash)
    labels = selector(cluster.metadata.name)
    body = child(cluster, "apps/v1", "Deployment", proxy_name(cluster.metadata.name))
    return body | {
        "spec": {
            "replicas": cluster.spec.proxy.replicas,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": 300,
            "strategy": _RECREATE if barrier else _ROLL,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {
                    "labels": body["metadata"]["labels"],
                    "annotations": {CONFIG_HASH: config.config_hash, ROUTING_HASH: config.routing_hash},
                },
                "spec": _pod(cluster, image, labels, config.routing_hash),
            },
        }
    }


_RECREATE = {"type": "Recreate"}
_ROLL = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def _pod(cluster: ShardedCluster, image: str, labels: dict[str, str], routing: str) -> dict[str, Any]:
    leave_soon = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_PERIOD,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "tolerations": [{"key": f"node.kubernetes.io/{state}", **leave_soon} for state in ("not-ready", "unreachable")],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels},
            }
        ],
        "containers": [_container(image, routing)],
        "volumes": [{"name": "config", "secret": {"secretName": config_name(cluster.metadata.name), "defaultMode": 0o440}}],
    }


def _container(image: str, routing: str) -> dict[str, Any]:
    return {
        "name": "proxy",
        "image": image,
        "command": list(COMMAND),
        "env": [
            {"name": "PGSHEPHERD_INSTANCE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": ROUTING_VARIABLE, "value": routing},
        ],
        "ports": [
            {"name": "sql", "containerPort": SQL_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
            {"name": "health", "containerPort": HEALTH_PORT},
        ],
        "startupProbe": _probe("/livez", period=1, failures=60),
        "livenessProbe": _probe("/livez", period=10, failures=3),
        "readinessProbe": _probe("/readyz", period=2, failures=2),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(ENDPOINTS_DELAY)]}}},
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "config", "mountPath": CONFIG_DIRECTORY, "readOnly": True}],
    }


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "health"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }
