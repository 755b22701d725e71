"""What a user sees of the resource: columns, names, scale, and a status that is stored as it was written."""

from __future__ import annotations

import json

import pytest
import pytest_asyncio

from cases import manifest
from crd_server import Server
from kube import Kubectl
from shardoperator.errors import KubernetesError
from shardoperator.kube.api import Resource, collection
from shardoperator.models.conditions import Condition
from shardoperator.models.status import Status
from shardoperator.names import API_VERSION, PLURAL
from statuses import NOW, full, oversized
from tools.cluster.api import ApiServer


async def _with_status(server: Server, status: Status) -> Resource:
    made = await server.create(manifest())
    path = f"{server.path}/{made['metadata']['name']}"
    await server.api.patch_status(path, status.to_resource())
    return await server.api.request("GET", path)


@pytest_asyncio.fixture(loop_scope="session")
async def kubectl(quiet_api: ApiServer, server: Server) -> Kubectl:
    """In a new namespace of the same server, with the cluster shop."""
    made = Kubectl(quiet_api.kubectl, quiet_api.kubeconfig(), (await Server.make(server.api)).namespace)
    await made.apply(json.dumps(manifest()))
    return made


def _path(kubectl: Kubectl) -> str:
    return f"{collection(API_VERSION, PLURAL, kubectl.namespace)}/shop"


async def test_columns_names_and_category(server: Server, kubectl: Kubectl) -> None:
    path = _path(kubectl)
    ready = Condition("Ready", "False", "ShardUnreachable", "", 1, NOW)
    await server.api.patch_status(path, full().to_resource() | {"conditions": [ready.to_json()]})
    heads, row = (line.split() for line in (await kubectl("get", "shc")).splitlines())
    assert heads == ["NAME", "SHARDS", "READY", "PROXY", "IN-DOUBT", "REASON", "AGE"]
    assert row[:-1] == ["shop", "1/2", "False", "1/2", "1", "ShardUnreachable"]
    assert "shop" in await kubectl("get", "sharding")


async def test_scale(server: Server, kubectl: Kubectl) -> None:
    path = _path(kubectl)
    await server.api.patch_status(path, full().to_resource())
    await kubectl("scale", "shc/shop", "--replicas=7")
    scale = await server.api.request("GET", f"{path}/scale")
    assert scale["spec"] == {"replicas": 7}
    assert scale["status"] == {"replicas": 2, "selector": "pgshepherd.io/cluster=shop"}


async def test_a_status_is_stored_as_it_was_written(server: Server) -> None:
    status = full()
    stored = (await _with_status(server, status))["status"]
    assert stored == _without_none(status.to_resource())


async def test_a_status_that_is_too_long_is_cut_and_not_refused(server: Server) -> None:
    stored = (await _with_status(server, oversized()))["status"]
    assert len(stored["shards"]) == 64
    assert stored["preparedTransactions"][0]["evidence"][-1] == "and 185 more"


async def test_nothing_that_is_no_status_goes_in(server: Server) -> None:
    made = await server.create(manifest())
    with pytest.raises(KubernetesError, match="inDoubt"):
        await server.api.patch_status(f"{server.path}/{made['metadata']['name']}", {"inDoubt": -1})


def _without_none(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_none(inner) for inner in value]
    return value
