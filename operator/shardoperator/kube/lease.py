"""One operator at a time, by a Lease.

Invariant: nothing's safety depends on it (recovery may run anywhere at any time); it saves work.  Whoever loses it ends its process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from shardoperator.errors import KubernetesError
from shardoperator.kube.api import KubeApi, collection
from shardoperator.names import LEASE

log = logging.getLogger("pgshepherd.lease")

DURATION, RENEW_DEADLINE, RETRY_PERIOD = 15, 10, 2
"""Seconds: how long a lease lasts, how long its holder tries to renew it, and the pause between tries; as controllers have them."""
REQUEST_TIMEOUT = 4.0
"""Seconds for one request about the lease: well below the deadline, so that a silent API is noticed in time."""


class _PromptLease(LeaseLock):
    """The library's lock, for which an API that is silent or away is a failed try and not the end of the election."""

    async def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                found, record = await super().get(name, namespace)
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            return False, ApiException(reason=str(error) or type(error).__name__)
        return found, record

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:
        return await _tried(super().create(name, namespace, election_record))

    async def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        return await _tried(super().update(name, namespace, updated_record))


async def _tried(request: Awaitable[bool]) -> bool:
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT):
            return bool(await request)
    except (OSError, TimeoutError, aiohttp.ClientError) as error:
        log.warning("the lease could not be written: %s", error or type(error).__name__)
        return False


async def lead(api: KubeApi, namespace: str, identity: str, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Wait for the lease, then work while holding it; True if the work ended by itself, False if the lease was lost.

    Raises what the work raises.
    """
    running: asyncio.Task[None] | None = None

    async def working() -> None:
        nonlocal running
        log.info("%s leads", identity)
        running = asyncio.ensure_future(work())
        await asyncio.wait({running})
        election.cancel()

    async def lost() -> None:
        log.error("the lease was lost")

    lock = _PromptLease(LEASE, namespace, identity, api.client)
    settings = Config(lock, DURATION, RENEW_DEADLINE, RETRY_PERIOD, onstarted_leading=working, onstopped_leading=lost)
    election = asyncio.ensure_future(LeaderElection(settings).run())
    try:
        await asyncio.wait({election})
    finally:
        election.cancel()
        ended = running is not None and running.done()
        if running is not None:
            running.cancel()
        await asyncio.gather(election, *([running] if running is not None else []), return_exceptions=True)
    if running is None or not ended:
        return False
    running.result()
    await _release(api, namespace, identity)
    return True


async def _release(api: KubeApi, namespace: str, identity: str) -> None:
    """So that the next one need not wait until it has run out."""
    path = f"{collection('coordination.k8s.io/v1', 'leases', namespace)}/{LEASE}"
    try:
        held = await api.get(path)
        if held is None or held.get("spec", {}).get("holderIdentity") != identity:
            return
        held["spec"] |= {"leaseDurationSeconds": 1, "holderIdentity": f"{identity} (released)"}
        await api.request("PUT", path, body=held)
    except KubernetesError as error:
        log.warning("the lease could not be released: %s", error)
