"""Where etcd, kube-apiserver, kube-controller-manager and kubectl come from. By hand: python -m tools.cluster.binaries

In this order: the folder KUBEBUILDER_ASSETS (envtest's convention), the cache, a build from the Go modules into the cache.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tools.cluster.cache import cache, made
from tools.cluster.golang import build
from tools.cluster.say import ClusterError, say, step

KUBERNETES = "1.34.4"
"""The version that kube/go.mod pins. To change it: here, there (also v0.34.4, its libraries), then `go mod tidy` there."""

MODULE = Path(__file__).parent / "kube"
"""The Go module of the one binary that is all of them."""

API = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
"""What an API server needs. envtest's own folders lack the controller-manager."""


def version_variables() -> list[str]:
    """Linker variables without which servers report v0.0.0 and kubectl cannot read their version."""
    major, minor, _ = KUBERNETES.split(".")
    version = "k8s.io/component-base/version"
    return [
        f"{version}.gitVersion=v{KUBERNETES}",
        f"{version}.gitMajor={major}",
        f"{version}.gitMinor={minor}",
        f"k8s.io/client-go/pkg/version.gitVersion=v{KUBERNETES}",
    ]


def _complete(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in API)


def find() -> Path | None:
    """The folder of binaries that is there already, or None; never builds."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and _complete(Path(assets)):
        return Path(assets)
    if assets:
        say(f"KUBEBUILDER_ASSETS={assets} is passed over: it lacks one of {', '.join(API)}")
    cached = cache("kube", f"v{KUBERNETES}")
    return cached if _complete(cached) else None


def obtain() -> Path:
    """The folder of binaries, built if need be."""
    return find() or made(cache("kube", f"v{KUBERNETES}"), _build)


def _build(folder: Path) -> None:
    name = f"building Kubernetes {KUBERNETES} and etcd into {cache('kube')}"
    with step(name, "once; about 5 minutes on 2 cores, 81 MB of downloads"):
        build(MODULE, ".", folder / "kube", variables=version_variables())
    for command in API:
        (folder / command).symlink_to("kube")


if __name__ == "__main__":
    try:
        print(obtain())
    except ClusterError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
