"""What a Deployment and its pods say of the proxies."""

from __future__ import annotations

from typing import Any

import pytest

from shardoperator.models.observation import ProxyObservation
from shardoperator.names import CONFIG_HASH
from shardoperator.reconcile.proxies import observe


def deployment(replicas: int = 2, ready: int = 2, config: str = "new", **status: Any) -> dict[str, Any]:
    template = {"metadata": {"annotations": {CONFIG_HASH: config}}}
    return {"spec": {"replicas": replicas, "template": template}, "status": {"readyReplicas": ready, **status}}


def pod(config: str = "new", waiting: str = "") -> dict[str, Any]:
    status = {"containerStatuses": [{"image": "x", "state": {"waiting": {"reason": waiting}}}]} if waiting else {}
    return {"metadata": {"name": "shop-proxy-1", "annotations": {CONFIG_HASH: config}}, "status": status}


LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too late"}

CASES: list[tuple[str, dict[str, Any] | None, list[dict[str, Any]], ProxyObservation | None]] = [
    ("nothing", None, [], None),
    ("only pods that end", None, [pod()], ProxyObservation(0, 0, message="1 pods are ending")),
    ("all serve", deployment(), [pod(), pod()], ProxyObservation(2, 2, "new")),
    ("one is missing", deployment(ready=1), [pod()], ProxyObservation(2, 1, "new")),
    ("an old pod is alive", deployment(), [pod(), pod("old")], ProxyObservation(2, 2, "")),
    ("only old pods yet", deployment(), [pod("old"), pod("old")], ProxyObservation(2, 2, "old")),
    ("surge", deployment(ready=3), [pod(), pod(), pod("old")], ProxyObservation(2, 2, "")),
    ("no status yet", {"spec": {"replicas": 2, "template": {}}}, [], ProxyObservation(2, 0, "")),
    (
        "the image can't be pulled",
        deployment(ready=0),
        [pod(waiting="ImagePullBackOff")],
        ProxyObservation(2, 0, "new", "ImagePullFailed", "pod shop-proxy-1: ImagePullBackOff: x"),
    ),
    (
        "a roll-out that does not end",
        deployment(ready=2, conditions=[LATE]),
        [pod("old"), pod("old"), pod()],
        ProxyObservation(2, 2, "", "ProgressDeadlineExceeded", "too late"),
    ),
]


@pytest.mark.parametrize(("found", "pods", "seen"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_observe(found: dict[str, Any] | None, pods: list[dict[str, Any]], seen: ProxyObservation | None) -> None:
    assert observe(found, pods) == seen
