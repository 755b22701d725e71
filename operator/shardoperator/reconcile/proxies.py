"""What a Deployment and its pods say of the proxies: pure.

Invariant: proxies serve a configuration only once every one of them does; while an old pod is alive, that is not so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shardoperator.models.observation import ProxyObservation
from shardoperator.names import CONFIG_HASH

Resource = dict[str, Any]

_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})


def observe(deployment: Resource | None, pods: Sequence[Resource]) -> ProxyObservation | None:
    """None: there is no Deployment, and no pod is left of one."""
    if deployment is None:
        return ProxyObservation(0, 0, message=f"{len(pods)} pods are ending") if pods else None
    spec, status = deployment.get("spec") or {}, deployment.get("status") or {}
    desired, ready = int(spec.get("replicas") or 0), int(status.get("readyReplicas") or 0)
    reason, message = _trouble(status, pods)
    template = spec.get("template", {}).get("metadata", {}).get("annotations") or {}
    hashes = {(pod["metadata"].get("annotations") or {}).get(CONFIG_HASH, "") for pod in pods}
    hashes |= {template.get(CONFIG_HASH, "")} if not pods else set()
    served = hashes.pop() if len(hashes) == 1 else ""
    return ProxyObservation(desired, min(ready, desired), served, reason, message)


def _trouble(status: Resource, pods: Sequence[Resource]) -> tuple[str, str]:
    for pod in pods:
        for container in (pod.get("status") or {}).get("containerStatuses") or []:
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in _PULL:
                text = f"pod {pod['metadata']['name']}: {waiting['reason']}: {waiting.get('message', container.get('image', ''))}"
                return "ImagePullFailed", text
    for condition in status.get("conditions") or []:
        if condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return "ProgressDeadlineExceeded", condition.get("message", "")
    return "", ""
