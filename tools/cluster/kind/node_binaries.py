"""The programs of a kind node and of kind itself, in the cache: built from Go modules."""

from __future__ import annotations

from pathlib import Path

from tools.cluster.binaries import KUBERNETES, MODULE, version_variables
from tools.cluster.cache import cache, made
from tools.cluster.golang import build, install, source
from tools.cluster.process import run
from tools.cluster.say import step

KIND = "sigs.k8s.io/kind@v0.33.0"
"""Later versions of kind drop cgroup v1."""

_LOCAL_PATH = "github.com/rancher/local-path-provisioner@v0.0.30"
_NAME = f"v{KUBERNETES}-node"


def node_binaries() -> Path:
    """A folder with `kube`, links to it by every name that it goes by, and local-path-provisioner."""

    def make(folder: Path) -> None:
        with step(f"building all of Kubernetes {KUBERNETES} into {cache('kube')}", "once; 2 to 7 minutes on 2 cores"):
            build(MODULE, ".", folder / "kube", tags="node", variables=version_variables())
            install(MODULE, folder, _LOCAL_PATH)
        for name in run(folder / "kube", "--names").split():
            (folder / name).symlink_to("kube")

    return made(cache("kube", _NAME), make)


def kind_program() -> Path:
    """kind, at the version whose files make our node image."""

    def make(folder: Path) -> None:
        with step(f"building {KIND}", "once; about 20 s"):
            install(MODULE, folder, KIND)

    return made(cache("kind", KIND.rpartition("@")[2]), make) / "kind"


def kind_source() -> Path:
    """kind's module, with the files of its own node image."""
    return source(MODULE, KIND)
