"""The parts of the node image that need no root: images as a layout, kind's files edited, its manifests with our images."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from tools.cluster.kind.node_files import edit, manifest
from tools.cluster.kind.oci import Image, write_layout
from tools.cluster.say import ClusterError


def test_images_share_a_layer(tmp_path: Path) -> None:
    (tmp_path / "kube").mkdir()
    (tmp_path / "kube" / "etcd").write_text("all of it")
    images = [Image("example.com/etcd:3", ["kube"]), Image("example.com/dns:1", ["kube"], ["/dns"])]
    write_layout(tmp_path / "images.tar", {"kube": tmp_path / "kube"}, images)
    with tarfile.open(tmp_path / "images.tar") as tar:
        files = {entry.name: (tar.extractfile(entry) or io.BytesIO()).read() for entry in tar}

    def blob(descriptor: dict[str, str]) -> bytes:
        return files["blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")]

    index = json.loads(files["index.json"])["manifests"]
    assert [one["annotations"]["io.containerd.image.name"] for one in index] == ["example.com/etcd:3", "example.com/dns:1"]
    manifests = [json.loads(blob(one)) for one in index]
    assert manifests[0]["layers"] == manifests[1]["layers"]
    configs = [json.loads(blob(one["config"])) for one in manifests]
    assert "Entrypoint" not in configs[0]["config"]
    assert configs[1]["config"]["Entrypoint"] == ["/dns"]
    layer = gzip.decompress(blob(manifests[0]["layers"][0]))
    assert configs[0]["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
    for name, content in files.items():
        if name.startswith("blobs/"):
            assert name.endswith(hashlib.sha256(content).hexdigest())


def test_a_manifest_gets_our_images(tmp_path: Path) -> None:
    source = tmp_path / "const.go"
    source.write_text(
        "package p\n\nconst image = `other`\n\nconst network = `\nkind: DaemonSet\nimage: ` + daemonImage + `\n---\n`\n"
    )
    assert manifest(source, "network", {"daemonImage": "ours:1"}) == "\nkind: DaemonSet\nimage: ours:1\n---\n"


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("a = 1\nb = 2\n")
    edit(file, r"^b = \d$", r"b = \3")
    assert file.read_text() == "a = 1\nb = \\3\n"
    with pytest.raises(ClusterError, match="nothing matches 'c = '"):
        edit(file, "c = ", "c = 3")
