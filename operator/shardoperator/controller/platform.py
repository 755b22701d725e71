"""What the loop needs of a platform: Kubernetes, or one machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shardoperator.models.manifest import Manifest
from shardoperator.models.observation import ProxyObservation
from shardoperator.models.spec import Metadata, ShardedCluster
from shardoperator.models.status import Status
from shardoperator.reconcile.events import Event
from shardoperator.resources.config import Listen, RenderedConfig


@dataclass(frozen=True)
class Desired:
    """What a user wants now."""

    metadata: Metadata
    manifest: Manifest | None
    """None: the spec can't be used."""
    invalid: str = ""
    """Why it can't."""


class Platform(Protocol):
    """Where a cluster's children live."""

    listen: Listen

    def instances(self, cluster: ShardedCluster) -> int:
        """Proxies that may run at a time, surge included."""
        ...

    async def read(self) -> Desired:
        """The object and its Secrets as they are now; raises ShardoperatorError if that can't be known."""
        ...

    async def hold(self) -> None:
        """Make sure that the object can't disappear before it is let go."""
        ...

    async def observe_proxy(self) -> ProxyObservation | None:
        """None: there is no proxy, not even one that is ending."""
        ...

    async def apply_proxy(self, cluster: ShardedCluster, config: RenderedConfig) -> None:
        """Make the proxies run with this configuration; returns before they are ready."""
        ...

    async def remove_proxy(self) -> None:
        """Drain and end them; may return before they have ended."""
        ...

    async def write_status(self, status: Status, events: Sequence[Event]) -> None:
        """Show it, and the transitions since the last one; called on each visit."""
        ...

    async def let_go(self) -> None:
        """The object is deleted, and nothing is left to do: remove what is left of it."""
        ...
