"""What the loop needs of a platform: Kubernetes, or one machine."""

from __future__ import annotations

from typing import Protocol

from shardoperator.models.observation import ProxyObservation
from shardoperator.models.status import Status
from shardoperator.resources.config import Listen, RenderedConfig


class Platform(Protocol):
    """Where a cluster's children live."""

    instances: int
    """Proxies that may run at a time, surge included."""
    listen: Listen

    async def observe_proxy(self) -> ProxyObservation | None:
        """None: there is no proxy."""
        ...

    async def apply_proxy(self, config: RenderedConfig) -> None:
        """Make the proxies run with this configuration; returns before they are ready."""
        ...

    async def write_status(self, status: Status) -> None:
        """Show it; called only when something changed."""
        ...
