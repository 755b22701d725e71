"""One Kubernetes API for the test run, a fresh namespace for each test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from crd_server import Server, install_crd
from kube import NO_API, Kubectl, api_server
from shardoperator.kube.api import connect
from tools.cluster.api import ApiServer
from tools.cluster.binaries import find


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if find() is None:
        terminalreporter.write_line(NO_API, red=True, bold=True)


@pytest.fixture(scope="session")
def api() -> Iterator[ApiServer]:
    """etcd, kube-apiserver, kube-controller-manager; no kubelet."""
    with api_server() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def kubectl(api: ApiServer) -> AsyncIterator[Kubectl]:
    """As admin, in a namespace that nobody else uses."""
    admin = Kubectl(api.kubectl, api.kubeconfig(), f"test-{secrets.token_hex(4)}")
    await admin("create", "namespace", admin.namespace)
    await admin("wait", "--for=create", "serviceaccount/default", "--timeout=60s")  # without it no pod can be made
    yield admin
    await admin("delete", "namespace", admin.namespace, "--wait=false")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(api: ApiServer) -> AsyncIterator[Server]:
    """With the CRD installed."""
    client = await connect(api.kubeconfig())
    try:
        await install_crd(client)
        namespace = f"crd-{secrets.token_hex(4)}"
        await client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}})
        yield Server(client, namespace)
    finally:
        await client.close()
