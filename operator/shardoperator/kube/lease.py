"""One operator at a time, by a Lease.

Invariant: nothing's safety depends on it (recovery may run anywhere at any time); it saves work.  Whoever loses it ends its process.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from kubernetes.aio.client import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.baselock import BaseLock

from shardoperator.errors import KubernetesError
from shardoperator.kube.api import KubeApi, Resource, collection
from shardoperator.names import LEASE

log = logging.getLogger("pgshepherd.lease")

DURATION, RENEW_DEADLINE, RETRY_PERIOD = 15, 10, 2
"""Seconds: how long a lease lasts, how long its holder tries to renew it, and the pause between tries; as controllers have them."""
_API_VERSION = "coordination.k8s.io/v1"
REQUEST_TIMEOUT = 4.0
"""Seconds for one request about the lease: well below the deadline, so that a silent API is noticed in time."""


class _Lease(BaseLock):
    """The lock of the library's election on a Lease.

    Its own LeaseLock (37.0) can't create a Lease: it passes `pretty=True`, which its own API refuses.  Here an API that is silent or
    away is a failed try, and not the end of the election.
    """

    def __init__(self, api: KubeApi, namespace: str, identity: str) -> None:
        super().__init__(LEASE, namespace, identity)
        self._api = api
        self._held: Resource = {}

    async def get(
        self, name: str, namespace: str
    ) -> tuple[bool, LeaderElectionRecord] | tuple[bool, Exception] | tuple[bool, None]:
        try:
            self._held = await self._request("GET", f"/{name}")
        except KubernetesError as error:
            body = json.dumps({"code": error.status})  # the election asks the body whether there is none yet
            return False, ApiException(status=error.status, reason=str(error), body=body)
        spec = self._held.get("spec") or {}
        times = [str(spec[key]) if key in spec else None for key in ("acquireTime", "renewTime")]
        duration = spec.get("leaseDurationSeconds")
        return True, LeaderElectionRecord(spec.get("holderIdentity"), str(duration) if duration else None, *times)

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        body = {"apiVersion": _API_VERSION, "kind": "Lease", "metadata": {"name": name}, "spec": _spec(election_record)}
        return await self._write("POST", "", body)

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        """On the version that was read: two candidates can't both succeed."""
        return await self._write("PUT", f"/{name}", {**self._held, "spec": _spec(updated_record)})

    async def release(self) -> None:
        """So that the next one need not wait until it has run out; raises KubernetesError."""
        held = await self._request("GET", f"/{self.name}")
        if (held.get("spec") or {}).get("holderIdentity") == self.identity:
            spec = held["spec"] | {"leaseDurationSeconds": 1, "holderIdentity": f"{self.identity} (released)"}
            await self._request("PUT", f"/{self.name}", {**held, "spec": spec})

    async def _write(self, method: str, path: str, body: Resource) -> bool:
        try:
            self._held = await self._request(method, path, body)
        except KubernetesError as error:
            log.warning("the lease could not be written: %s", error)
            return False
        return True

    async def _request(self, method: str, path: str, body: Resource | None = None) -> Resource:
        where = collection(_API_VERSION, "leases", self.namespace) + path
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                return await self._api.request(method, where, body=body)
        except TimeoutError as error:
            raise KubernetesError(f"{method} {where}: no answer within {REQUEST_TIMEOUT:g} s") from error


def _spec(record: LeaderElectionRecord) -> Resource:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    acquired = record.acquire_time if str(record.acquire_time).endswith("Z") else now
    return {
        "holderIdentity": record.holder_identity,
        "leaseDurationSeconds": int(record.lease_duration or DURATION),
        "acquireTime": acquired,
        "renewTime": now,
    }


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

    lock = _Lease(api, namespace, identity)
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
    if running is None:
        election.result()  # it ends before it has begun only by an error
    if running is None or not ended:
        return False
    running.result()
    try:
        await lock.release()
    except KubernetesError as error:
        log.warning("the lease could not be released: %s", error)
    return True
