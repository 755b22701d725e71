"""The node image, where kind's own cannot be pulled: the packed root file system of a node, in the cache."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tools.cluster.binaries import KUBERNETES
from tools.cluster.cache import cache, made
from tools.cluster.kind.debian import debootstrap, pack
from tools.cluster.kind.node_binaries import kind_source, node_binaries
from tools.cluster.kind.node_files import PACKAGES, make_node, manifest
from tools.cluster.kind.preload import KINDNET, LOCAL_PATH, LOCAL_PATH_HELPER, kubeadm_images, preload
from tools.cluster.say import step

REVISION = 1
"""To be raised when what is in the image changes: then it is built anew everywhere."""

IMAGE = f"pgshepherd.test/node:v{KUBERNETES}-{REVISION}"
CHANGES = ("ENV container=docker", 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]')
"""For `docker import --change`."""


def node_archive() -> Path:
    """The image's packed root file system, built if need be."""
    return made(cache("images", f"node-v{KUBERNETES}-{REVISION}"), _build) / "root.tar.zst"


def _build(folder: Path) -> None:
    binaries, kind = node_binaries(), kind_source()
    root = folder / "root"
    with step(f"building the node image into {cache('images')}", "once; about 2 minutes"):
        debootstrap(root, PACKAGES)
        make_node(root, kind, binaries, kubeadm_images(binaries)["pause"])
        _write_manifests(root, kind / "pkg" / "build" / "nodeimage")
        with step("making the images of the control plane", "about 20 s"), tempfile.TemporaryDirectory(dir=folder) as scratch:
            preload(root, binaries, Path(scratch))
        pack(root, folder / "root.tar.zst")
        shutil.rmtree(root)


def _write_manifests(root: Path, sources: Path) -> None:
    network = manifest(sources / "const_cni.go", "defaultCNIManifest", {"kindnetdImage": KINDNET})
    (root / "kind/manifests/default-cni.yaml").write_text(network)
    images = {"storageProvisionerImage": LOCAL_PATH, "storageHelperImage": LOCAL_PATH_HELPER}
    storage = manifest(sources / "const_storage.go", "defaultStorageManifest", images)
    (root / "kind/manifests/default-storage.yaml").write_text(storage)
