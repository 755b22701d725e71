"""Events about a ShardedCluster, counted instead of repeated."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from shardoperator.errors import KubernetesError
from shardoperator.kube.api import KubeApi, Resource, collection
from shardoperator.names import API_VERSION, KIND

MESSAGE_LIMIT = 1024
"""Bytes of an Event's message that the API takes."""
COMPONENT = "pgshepherd-operator"


async def post_event(api: KubeApi, subject: Resource, *, warning: bool, reason: str, message: str) -> None:
    """The same reason and message about the same object become one Event with a count; raises KubernetesError."""
    metadata = subject["metadata"]
    text = message.encode()[:MESSAGE_LIMIT].decode(errors="ignore")
    digest = hashlib.sha256("\0".join((metadata["uid"], reason, text)).encode()).hexdigest()[:16]
    name, now = f"{metadata['name'][:200]}.{digest}", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    path = collection("v1", "events", metadata["namespace"])
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "message": text,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
    }
    try:
        await api.request("POST", path, body=body)
    except KubernetesError as error:
        if error.status != 409:
            raise
        await _count(api, f"{path}/{name}", now)


async def _count(api: KubeApi, path: str, now: str) -> None:
    known = await api.get(path)
    count = int((known or {}).get("count") or 1)
    patch = {"count": count + 1, "lastTimestamp": now}
    await api.request("PATCH", path, body=patch, content_type="application/merge-patch+json")
