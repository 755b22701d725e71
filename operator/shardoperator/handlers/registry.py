"""kopf's handlers: they wake, they do not decide.

Only on.event is used: it stores nothing in the object.  A kopf daemon would hold the finalizer for us, but an operator that starts
while an object is being deleted gets no daemon, and kopf then lets the object go (kopf/_core/reactor/processing.py,
process_spawning_cause): the guard would be gone just when it is needed.  So the loops and the finalizer are our own.
"""

from __future__ import annotations

from typing import Any

import kopf

from shardoperator.handlers.clusters import Clusters
from shardoperator.names import CLUSTER_LABEL, GROUP, PLURAL, VERSION

OPERATOR_PREFIX = "operator.pgshepherd.io"
"""Of kopf's own finalizer and annotations, should it ever need one."""

_CHILDREN = (("v1", "pods"), ("v1", "services"), ("apps/v1", "deployments"), ("policy/v1", "poddisruptionbudgets"))


def registry(clusters: Clusters) -> kopf.OperatorRegistry:
    """All handlers; explicit, so that tests can have several."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        access = await clusters.api.access()
        return kopf.ConnectionInfo(
            server=access.server,
            token=access.token,
            ca_path=access.ca_path,
            certificate_path=access.certificate_path,
            private_key_path=access.private_key_path,
            insecure=access.insecure,
        )

    @kopf.on.event(group=GROUP, version=VERSION, plural=PLURAL, registry=handlers)
    async def cluster(namespace: str | None, name: str | None, body: Any, type: str | None, **_: Any) -> None:  # noqa: A002 - kopf's name
        if type == "DELETED":
            clusters.gone(namespace or "", name or "")
        else:
            clusters.noticed(namespace or "", name or "", body)

    @kopf.on.event("v1", "secrets", registry=handlers)
    async def secret(namespace: str | None, name: str | None, labels: Any, **_: Any) -> None:
        clusters.wake_by_secret(namespace or "", name or "")
        clusters.wake_by_labels(namespace or "", labels)

    for kind in _CHILDREN:

        @kopf.on.event(*kind, registry=handlers, labels={CLUSTER_LABEL: kopf.PRESENT}, id=f"child-{kind[1]}")
        async def child(namespace: str | None, labels: Any, **_: Any) -> None:
            clusters.wake_by_labels(namespace or "", labels)

    return handlers


def settings(*, namespaced: bool) -> kopf.OperatorSettings:
    """Names of our own everywhere, and time limits for every watch and request."""
    chosen = kopf.OperatorSettings()
    chosen.persistence.finalizer = f"{OPERATOR_PREFIX}/kopf"
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=OPERATOR_PREFIX, v1=False)
    chosen.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=OPERATOR_PREFIX, v1=False)
    chosen.posting.enabled = False
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 10
    chosen.watching.server_timeout = 600
    chosen.watching.connect_timeout = 10
    chosen.scanning.disabled = namespaced
    return chosen
