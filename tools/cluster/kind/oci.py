"""Images as an OCI layout in one tar, which containerd imports: no registry and no engine is needed to make them.

Layers are shared: the binary that is all of Kubernetes is stored once, whatever the number of images that run it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_OCI = "application/vnd.oci.image"
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Image:
    """`layers` are the names of folders."""

    name: str
    layers: Sequence[str]
    entrypoint: Sequence[str] = ()


class _Layout:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._written: set[str] = set()

    def file(self, name: str, content: bytes) -> None:
        if name not in self._written:
            self._written.add(name)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            self._tar.addfile(entry, io.BytesIO(content))

    def blob(self, media_type: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        self.file(f"blobs/sha256/{digest}", content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def json(self, media_type: str, content: Mapping[str, Any]) -> dict[str, Any]:
        return self.blob(media_type, json.dumps(content).encode())


def _root_owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def _tar(folder: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.add(folder, arcname=".", filter=_root_owned)
    return content.getvalue()


def write_layout(archive: Path, folders: Mapping[str, Path], images: Sequence[Image]) -> None:
    """Write all images into one archive."""
    with tarfile.open(archive, "w") as tar:
        layout = _Layout(tar)
        layers: dict[str, dict[str, Any]] = {}
        diffs: dict[str, str] = {}
        for name, folder in folders.items():
            content = _tar(folder)
            diffs[name] = "sha256:" + hashlib.sha256(content).hexdigest()
            layers[name] = layout.blob(f"{_OCI}.layer.v1.tar+gzip", gzip.compress(content, 4, mtime=0))
        manifests = [_manifest(layout, image, layers, diffs) for image in images]
        layout.file("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        layout.file("index.json", json.dumps({"schemaVersion": 2, "manifests": manifests}).encode())


def _manifest(layout: _Layout, image: Image, layers: Mapping[str, Any], diffs: Mapping[str, str]) -> dict[str, Any]:
    built_for = {"architecture": _ARCHITECTURE, "os": "linux"}
    process: dict[str, Any] = {"Env": [_PATH]} | ({"Entrypoint": list(image.entrypoint)} if image.entrypoint else {})
    root = {"type": "layers", "diff_ids": [diffs[layer] for layer in image.layers]}
    config = layout.json(f"{_OCI}.config.v1+json", {**built_for, "config": process, "rootfs": root})
    content = {"schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json", "config": config}
    manifest = layout.json(f"{_OCI}.manifest.v1+json", {**content, "layers": [layers[layer] for layer in image.layers]})
    tag = image.name.rsplit(":", 1)[1]
    names = {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": tag}
    return {**manifest, "platform": built_for, "annotations": names}
