"""One kind cluster for the run, made by tools/cluster and gone at the end whatever happens; the README's commands run on it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from readme import commands
from shopkind import ROOT, SECTION, Shop, environment
from tools.cluster.binaries import obtain
from tools.cluster.kind import cluster
from tools.cluster.kind.engine import engine
from tools.cluster.kind.node_binaries import kind_program
from tools.cluster.kind.state import kubeconfig

NAME, WORKERS = "pgshepherd-e2e", 2


def _kind(*words: str) -> None:
    """In a process of its own, since it leaves processes behind that outlive it."""
    subprocess.run([sys.executable, "-m", "tools.cluster.kind", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def _environment() -> dict[str, str]:
    """As a person's shell would have it: docker, kind, kubectl and our own programs on PATH, kind's cluster and kubeconfig chosen."""
    docker, base = engine(), cluster.base()
    # make image takes the last two where no public image can be pulled; a build there reaches no package index either.
    choices = {"KUBECONFIG": str(kubeconfig(NAME)), "KIND_CLUSTER_NAME": NAME, "BASE_IMAGE": base, "WHEELS": "1" if base else ""}
    folders = [Path(sys.executable).parent]  # kubectl finds its plugins on PATH
    if docker.pid is not None or shutil.which("kind") is None:
        folders.append(kind_program().parent)
    if shutil.which("kubectl") is None:
        folders.append(obtain())
    return environment({**docker.env, **choices}, *folders)


@pytest.fixture(scope="session")
def shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    """A clean cluster, and on it the README's five commands to the letter."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the cluster goes then, too
    try:
        _kind("down", NAME)  # of a run that was killed
        _kind("up", NAME, "--workers", str(WORKERS))
        made = Shop(_environment())
        try:
            for command in commands(SECTION, 0):
                made.shell(command)
            yield made
        finally:
            if request.session.testsfailed or sys.exc_info()[0] is not None:
                made.describe()
    finally:
        _kind("down", NAME)
        signal.signal(signal.SIGTERM, before)
