"""What a real API server says to a ShardedCluster."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from dataclasses import dataclass, field
from typing import Any

from cases import Manifest
from crd import load_crd
from shardoperator.errors import KubernetesError
from shardoperator.kube.api import KubeApi, Resource, collection
from shardoperator.names import API_VERSION, PLURAL

_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_DRY = {"dryRun": "All", "fieldValidation": "Strict"}
"""Strict is kubectl's default; without it an unknown field is dropped in silence."""


@dataclass
class Server:
    """In one namespace."""

    api: KubeApi
    namespace: str
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    @classmethod
    async def make(cls, api: KubeApi) -> Server:
        """In a new namespace."""
        namespace = f"crd-{secrets.token_hex(4)}"
        await api.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}})
        return cls(api, namespace)

    @property
    def path(self) -> str:
        """Of all ShardedClusters."""
        return collection(API_VERSION, PLURAL, self.namespace)

    async def refusal(self, given: Manifest) -> str | None:
        """Of a creation; None if it would be created."""
        return await self._refusal("POST", self.path, given)

    async def filled(self, given: Manifest) -> dict[str, Any]:
        """The spec with its defaults; raises KubernetesError."""
        made = await self.api.request("POST", self.path, query=_DRY, body=given)
        return dict(made["spec"])

    async def refusal_of_change(self, old: Manifest, new: Manifest) -> str | None:
        """Of the change from old, which is created for it, to new."""
        made = await self.create(old)
        name = made["metadata"]["name"]
        changed = new | {"metadata": {"name": name, "resourceVersion": made["metadata"]["resourceVersion"]}}
        try:
            return await self._refusal("PUT", f"{self.path}/{name}", changed)
        finally:
            await self.api.delete(f"{self.path}/{name}")

    async def create(self, given: Manifest) -> Resource:
        """Under a name of its own."""
        body = given | {"metadata": {"name": f"shop-{next(self._numbers)}"}}
        return await self.api.request("POST", self.path, query={"fieldValidation": "Strict"}, body=body)

    async def _refusal(self, method: str, path: str, body: Manifest) -> str | None:
        try:
            await self.api.request(method, path, query=_DRY, body=body)
        except KubernetesError as error:
            if error.status not in (400, 422):  # 400: not decoded, as for an unknown field; 422: not valid
                raise
            return str(error)
        return None


async def install_crd(api: KubeApi) -> None:
    """Until it can be used."""
    crd = load_crd()
    path = f"{_CRDS}/{crd['metadata']['name']}"
    await api.apply(path, crd)
    async with asyncio.timeout(60):
        while not _established(await api.request("GET", path)):
            await asyncio.sleep(0.05)


def _established(crd: Resource) -> bool:
    conditions = crd.get("status", {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)
