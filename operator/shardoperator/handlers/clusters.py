"""Which clusters there are, and who is to be woken by what.

Invariant: a wake-up carries no data: the loop reads everything anew, so an event that is lost, late or doubled does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shardoperator.controller.loop import ClusterController
from shardoperator.handlers.platform import KubernetesPlatform
from shardoperator.kube.api import KubeApi
from shardoperator.models.status import remembered
from shardoperator.names import CLUSTER_LABEL
from shardoperator.recovery.metrics import RecoveryMetrics

Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True)
class Settings:
    """How one operator works."""

    image: str
    """Of the proxies."""
    interval: float = 5.0
    """Seconds between two visits of a cluster."""


@dataclass
class Clusters:
    """All clusters of one operator; owner of their tasks."""

    api: KubeApi
    settings: Settings
    metrics: RecoveryMetrics = field(default_factory=RecoveryMetrics)
    leading: bool = False
    """Whether this process holds the lease and works."""
    _controllers: dict[Key, ClusterController] = field(default_factory=dict)
    _platforms: dict[Key, KubernetesPlatform] = field(default_factory=dict)
    _tasks: dict[Key, asyncio.Task[None]] = field(default_factory=dict)
    _secrets: dict[Key, frozenset[str]] = field(default_factory=dict)
    """Names of the Secrets that each cluster's spec names."""

    def noticed(self, namespace: str, name: str, body: Mapping[str, Any]) -> None:
        """The object is there: follow it, remember its Secrets, visit it now."""
        key = (namespace, name)
        self._secrets[key] = frozenset(_named_secrets(body.get("spec")))
        if key in self._tasks:
            self.wake(namespace, name)
            return
        platform = self._platforms[key] = KubernetesPlatform(self.api, namespace, name, self.settings.image)
        memory = remembered(body.get("status") or {})
        controller = ClusterController(platform, interval=self.settings.interval, memory=memory, metrics=self.metrics)
        self._controllers[key] = controller
        task = self._tasks[key] = asyncio.create_task(controller.run(), name=f"cluster {namespace}/{name}")
        task.add_done_callback(lambda _: self._ended(key))

    def _ended(self, key: Key) -> None:
        for known in (self._tasks, self._controllers, self._platforms, self._secrets):
            known.pop(key, None)

    def gone(self, namespace: str, name: str) -> None:
        """The object is no more, whoever removed it."""
        task = self._tasks.get((namespace, name))
        if task is not None:
            task.cancel()
        self.metrics.of(namespace, name).forget()

    async def close(self) -> None:
        """End all loops; what is decided on a shard is decided, and the next operator goes on."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def oldest_visit(self) -> float:
        """Seconds since the cluster that was visited longest ago was visited; 0 without clusters."""
        return max((controller.since_visit() for controller in self._controllers.values()), default=0.0)

    def wake(self, namespace: str, name: str) -> None:
        """Visit it now; a cluster that is not ours to watch is passed over."""
        controller = self._controllers.get((namespace, name))
        if controller is not None:
            controller.wake.set()

    def wake_by_secret(self, namespace: str, secret: str) -> None:
        """Every cluster that names this Secret."""
        for (place, name), names in self._secrets.items():
            if place == namespace and secret in names:
                self._touched(place, name, secrets=True)

    def wake_by_labels(self, namespace: str, labels: Mapping[str, str]) -> None:
        """The cluster that a child belongs to."""
        self._touched(namespace, labels.get(CLUSTER_LABEL, ""), secrets=False)

    def _touched(self, namespace: str, name: str, *, secrets: bool) -> None:
        platform = self._platforms.get((namespace, name))
        if platform is not None:
            platform.touched(secrets=secrets)
            self.wake(namespace, name)


def _named_secrets(value: object) -> set[str]:
    """Names below every key that ends in SecretRef; of any spec, valid or not."""
    found: set[str] = set()
    if isinstance(value, dict):
        for key, inner in value.items():
            if str(key).endswith("SecretRef") and isinstance(inner, dict) and isinstance(inner.get("name"), str):
                found.add(inner["name"])
            found |= _named_secrets(inner)
    elif isinstance(value, list):
        for inner in value:
            found |= _named_secrets(inner)
    return found
