"""Kubernetes as a platform: the spec from the API, children by server-side apply, the status in the object.

Invariant: a status that says nothing new is not written; children are only ever written as a whole, by our own field manager.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from shardoperator.controller.platform import Desired
from shardoperator.errors import KubernetesError
from shardoperator.kube.api import KubeApi, Resource, collection
from shardoperator.kube.clusters import cluster_path, read_cluster, read_secrets
from shardoperator.kube.events import post_event
from shardoperator.models.manifest import Manifest, Secrets, validation_lines
from shardoperator.models.observation import ProxyObservation
from shardoperator.models.spec import Metadata, ShardedCluster, Spec
from shardoperator.models.status import Status
from shardoperator.names import FINALIZER, ROUTING_HASH, proxy_name
from shardoperator.reconcile.events import Event
from shardoperator.reconcile.proxies import observe
from shardoperator.resources.children import DEPLOYMENT, child_names, children
from shardoperator.resources.config import Listen, RenderedConfig
from shardoperator.resources.ownership import selector_text

log = logging.getLogger("pgshepherd.kubernetes")


RESYNC = 60.0
"""Seconds for which what was read or applied last is believed, if no event tells of a change."""

T = TypeVar("T")


class Fresh(Generic[T]):
    """A value that is believed until it is forgotten or has grown old."""

    def __init__(self) -> None:
        self.changes = 0
        """How often it was forgotten."""
        self._value: T | None = None
        self._until = 0.0

    @property
    def value(self) -> T | None:
        """None if there is none any more."""
        return self._value if time.monotonic() < self._until else None

    def keep(self, value: T, *, changes: int) -> T:
        """From now on, unless it was forgotten since `changes` was looked at, before the value was read or written."""
        if changes == self.changes:
            self._value, self._until = value, time.monotonic() + RESYNC
        return value

    def forget(self) -> None:
        """It may be true no longer."""
        self.changes += 1
        self._value = None


class KubernetesPlatform:
    """One ShardedCluster's children."""

    def __init__(self, api: KubeApi, namespace: str, name: str, image: str) -> None:
        self.listen = Listen()
        self._api = api
        self._namespace = namespace
        self._name = name
        self._image = image
        """Of the proxy."""
        self._body: Resource = {}
        """The object as it was read last."""
        self._deployment: Resource | None = None
        self._pods: list[Resource] = []
        self._secrets = Fresh[tuple[Spec, Secrets]]()
        self._applied = Fresh[list[Resource]]()

    def touched(self, *, secrets: bool) -> None:
        """One of the Secrets that the spec names, or one of the children, has changed or gone."""
        (self._secrets if secrets else self._applied).forget()

    @property
    def _path(self) -> str:
        return cluster_path(self._namespace, self._name)

    def instances(self, cluster: ShardedCluster) -> int:
        """The replicas, and one more while a new configuration rolls."""
        return cluster.spec.proxy.replicas + 1

    async def read(self) -> Desired:
        """The object as it stands, and the Secrets that it names."""
        self._body = await read_cluster(self._api, self._namespace, self._name)
        try:
            metadata = Metadata.model_validate(self._body["metadata"])
        except ValidationError as error:
            raise KubernetesError(f"{self._path}: {'; '.join(validation_lines(error))}") from error
        try:
            cluster = ShardedCluster.model_validate(self._body)
        except ValidationError as error:
            return Desired(metadata, None, "; ".join(validation_lines(error)))
        return Desired(metadata, Manifest(cluster, await self._read_secrets(cluster.spec)))

    async def _read_secrets(self, spec: Spec) -> Secrets:
        known = self._secrets.value
        if known is None or known[0] != spec:
            changes = self._secrets.changes
            known = self._secrets.keep((spec, await read_secrets(self._api, self._namespace, spec)), changes=changes)
        return known[1]

    async def observe_proxy(self) -> ProxyObservation | None:
        """From the Deployment and its pods."""
        self._deployment = await self._api.get(self._child(DEPLOYMENT.api_version, DEPLOYMENT.plural, proxy_name(self._name)))
        self._pods = await self._api.list(collection("v1", "pods", self._namespace), selector=selector_text(self._name))
        return observe(self._deployment, self._pods)

    async def apply_proxy(self, cluster: ShardedCluster, config: RenderedConfig) -> None:
        """Every child that is wanted, when something else is wanted or somebody edited or deleted one, and now and then anyhow."""
        wanted = children(cluster, config, self._image, alive_routing=self._alive_routing(config.routing_hash))
        bodies = [body for _, body in wanted]
        if self._applied.value == bodies:
            return
        changes = self._applied.changes
        for kind, body in wanted:
            await self._api.apply(self._child(kind.api_version, kind.plural, body["metadata"]["name"]), body)
        self._applied.keep(bodies, changes=changes)

    def _alive_routing(self, desired: str) -> str | None:
        """The routing hash of proxies that may be alive, another than the desired one before all."""
        templates = [self._deployment["spec"]["template"]] if self._deployment is not None else []
        hashes = {_routing_hash(one) for one in (*templates, *self._pods)}
        other = sorted(hashes - {desired})
        return other[0] if other else desired if hashes else None

    async def remove_proxy(self) -> None:
        """All children; the Deployment stays visible until its pods have ended."""
        self._applied.forget()
        for kind, name in child_names(self._name):
            await self._api.delete(self._child(kind.api_version, kind.plural, name), foreground=kind is DEPLOYMENT)

    async def hold(self) -> None:
        """Put the finalizer on the object; one that somebody changed meanwhile (409) is held on the next visit."""
        metadata = self._body["metadata"]
        finalizers = metadata.get("finalizers") or []
        if FINALIZER not in finalizers and "deletionTimestamp" not in metadata:
            await self._set_finalizers([*finalizers, FINALIZER])

    async def let_go(self) -> None:
        """Children go with us and not only by garbage collection; then the finalizer goes."""
        await self.remove_proxy()
        self._body = await read_cluster(self._api, self._namespace, self._name)
        finalizers = self._body["metadata"].get("finalizers") or []
        if FINALIZER in finalizers:
            await self._set_finalizers([one for one in finalizers if one != FINALIZER])

    async def _set_finalizers(self, finalizers: list[str]) -> None:
        metadata = {"finalizers": finalizers, "resourceVersion": self._body["metadata"]["resourceVersion"]}
        body = {"metadata": metadata}
        self._body = await self._api.request("PATCH", self._path, body=body, content_type="application/merge-patch+json")

    async def write_status(self, status: Status, events: Sequence[Event]) -> None:
        """Only what is new, then the Events; one that can't be posted is logged, since the condition says the same."""
        desired = status.to_resource()
        if _differs(desired, self._body.get("status") or {}):
            self._body = await self._api.patch_status(self._path, desired)
        for event in events:
            try:
                await post_event(self._api, self._body, warning=event.warning, reason=event.reason, message=event.message)
            except KubernetesError as error:
                log.warning("event %s of %s/%s: %s", event.reason, self._namespace, self._name, error)

    def _child(self, api_version: str, plural: str, name: str) -> str:
        return f"{collection(api_version, plural, self._namespace)}/{name}"


def _routing_hash(pod: Resource) -> str:
    annotations = pod.get("metadata", {}).get("annotations") or {}
    return str(annotations.get(ROUTING_HASH, ""))


def _differs(desired: Any, stored: Any) -> bool:
    """The API leaves out what is None."""
    if isinstance(desired, dict) and isinstance(stored, dict):
        return any(_differs(value, stored.get(key)) for key, value in desired.items())
    if isinstance(desired, list) and isinstance(stored, list):
        return len(desired) != len(stored) or any(_differs(one, other) for one, other in zip(desired, stored, strict=True))
    return bool(desired != stored)
