"""One Kubernetes API for the test run, a fresh namespace for each test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from bench import Servers
from crd_server import Server, install_crd
from kube import NO_API, Kubectl, api_server
from kubelet import Kubelet
from kubeworld import ROOT, Operator, World
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


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def operator(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Operator]:
    """The CRD, and one operator with the rights of its ServiceAccount; all tests share it, each in its namespace."""
    admin = Kubectl(api.kubectl, api.kubeconfig(), "pgshepherd")
    for file in ("crds/shardedclusters.yaml", "charts/plain/namespace.yaml", "charts/plain/rbac.yaml"):
        await admin("apply", "-f", str(ROOT / file))
    token = await admin("create", "token", "pgshepherd-operator", "--duration=12h")
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    running = Operator(api.kubeconfig("pgshepherd-operator", token.strip()), log)
    await running.start()
    yield running
    assert await running.stop() == 0, running.text()[-3000:]
    assert "Traceback" not in running.text(), running.text()[-5000:]


@pytest_asyncio.fixture(loop_scope="session")
async def world(kubectl: Kubectl, api: ApiServer, servers: Servers, operator: Operator, tmp_path: Path) -> AsyncIterator[World]:
    """A namespace with shards, Secrets and a kubelet; the ShardedCluster is the test's to apply."""
    client = await connect(api.kubeconfig())
    kubelet = Kubelet(client, kubectl.namespace, tmp_path)
    await kubelet.start()
    made = await World.make(kubectl, servers, kubelet)
    yield made
    await kubectl("delete", "shc", "--all", "--wait=false")
    await kubectl("annotate", "shc", "--all", "pgshepherd.io/force-delete=true")
    await kubectl("wait", "--for=delete", "shc", "--all", "--timeout=60s", timeout=70)
    await kubelet.close()
    await made.close()
    await client.close()


@pytest_asyncio.fixture(loop_scope="session")
async def loose_crd(api: ApiServer) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Call it to take the checks out of the CRD, as if an older one had let an object in."""
    admin = Kubectl(api.kubectl, api.kubeconfig())
    text = (ROOT / "crds/shardedclusters.yaml").read_text()

    async def loosen() -> None:
        crd = yaml.safe_load(text)
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        schema["properties"]["spec"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        schema.pop("x-kubernetes-validations", None)
        await admin.apply(yaml.safe_dump(crd))

    yield loosen
    await admin.apply(text)


@pytest.fixture(scope="session")
def quiet_api() -> Iterator[ApiServer]:
    """One that no operator watches and no test loosens the CRD of."""
    with api_server() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(quiet_api: ApiServer) -> AsyncIterator[Server]:
    """With the CRD installed."""
    client = await connect(quiet_api.kubeconfig())
    try:
        await install_crd(client)
        yield await Server.make(client)
    finally:
        await client.close()
