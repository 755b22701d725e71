"""The servers of the Kubernetes API leave neither processes nor files, however the process that started them ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.cluster.api import ApiServer
from tools.cluster.say import ClusterError


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  nothing tells when a process that is not our child ends
            await asyncio.sleep(0.05)


def _processes_of(directory: Path) -> list[str]:
    """Those that name the directory on their command line."""
    lines = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if str(directory) in line]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_nothing_stays_when_the_parent_ends(api: ApiServer, number: signal.Signals) -> None:
    environment = os.environ | {"KUBEBUILDER_ASSETS": str(api.binaries)}
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tools.cluster.api", stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert parent.stdout is not None
    try:
        async with asyncio.timeout(100):
            directory = Path((await parent.stdout.readline()).decode().strip()).parent
        assert len(_processes_of(directory)) >= 3
    finally:
        parent.send_signal(number)
        await parent.wait()
    await _until(lambda: not directory.exists() and not _processes_of(directory))


async def test_nothing_stays_of_a_start_that_failed(api: ApiServer, tmp_path: Path) -> None:
    (tmp_path / "etcd").symlink_to(api.binaries / "etcd")
    (tmp_path / "kube-apiserver").write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    (tmp_path / "kube-apiserver").chmod(0o755)
    broken = ApiServer(tmp_path)
    with pytest.raises(ClusterError, match="kube-apiserver ended at once: no room"), broken:
        raise AssertionError("it started")
    assert not broken.directory.exists()
    assert not _processes_of(broken.directory)
