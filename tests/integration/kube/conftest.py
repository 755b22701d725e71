import os
from collections.abc import AsyncIterator
from pathlib import Path
import pytest_asyncio, secrets
from shardoperator.kube.api import connect
from crd_server import Server, install_crd


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server() -> AsyncIterator[Server]:
    api = await connect(Path(os.environ["KUBECONFIG"]))
    await install_crd(api)
    namespace = f"crd-{secrets.token_hex(4)}"
    await api.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}})
    yield Server(api, namespace)
    await api.close()
