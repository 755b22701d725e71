"""The images that a node starts from, made from scratch and put into its containerd: no registry is asked, ever."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from tools.cluster.binaries import KUBERNETES
from tools.cluster.kind.oci import Image, write_layout
from tools.cluster.process import run

KINDNET = "pgshepherd.test/kindnet:1"
LOCAL_PATH = "pgshepherd.test/local-path-provisioner:1"
LOCAL_PATH_HELPER = "pgshepherd.test/local-path-helper:1"

_APPLETS = ("sh", "ip", "ls", "cat", "ps", "sleep", "mkdir", "rm")
_IMPORT = """\
mount -t proc proc /proc && mount -t tmpfs tmpfs /run
printf 'version = 2\\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\\n' > /run/config.toml
containerd -c /run/config.toml > /run/log 2>&1 &
for try in $(seq 300); do ctr version > /dev/null 2>&1 && break; sleep 0.1; done
ctr -n k8s.io images import --all-platforms --digests --no-unpack /images.tar || { tail -n 3 /run/log >&2; exit 1; }
kill %1; wait
"""


def kubeadm_images(binaries: Path) -> dict[str, str]:
    """The images that kubeadm will ask for, by their last names: etcd, pause, coredns, kube-apiserver, ..."""
    names = run(binaries / "kubeadm", "config", "images", "list", f"--kubernetes-version=v{KUBERNETES}").split()
    return {re.split("[/:]", name)[-2]: name for name in names}


def _images(names: dict[str, str]) -> list[Image]:
    plain = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    return [
        *(Image(names[name], ["kube"]) for name in plain),
        Image(names["coredns"], ["kube"], ["/usr/local/bin/coredns"]),
        Image(names["kube-proxy"], ["busybox", "iptables", "kube"]),
        Image(names["pause"], ["busybox"], ["/bin/sleep", "2147483647"]),
        Image(KINDNET, ["busybox", "iptables", "kube"], ["/usr/local/bin/kindnet"]),
        Image(LOCAL_PATH, ["local-path"]),
        Image(LOCAL_PATH_HELPER, ["busybox"]),
    ]


def preload(root: Path, binaries: Path, scratch: Path) -> None:
    """Put all images into the containerd of the node at `root`."""
    layers = {name: scratch / name for name in ("kube", "local-path", "busybox", "iptables")}
    for folder in layers.values():
        (folder / "usr/local/bin").mkdir(parents=True)
        _merge_usr(folder)
    for program in binaries.iterdir():
        layer = "local-path" if program.name == "local-path-provisioner" else "kube"
        shutil.copy(program, layers[layer] / "usr/local/bin", follow_symlinks=False)
    _busybox(root, layers["busybox"])
    _iptables(root, layers["iptables"])
    write_layout(root / "images.tar", layers, _images(kubeadm_images(binaries)))
    shutil.rmtree(root / "var/lib/containerd", ignore_errors=True)
    run("unshare", "--mount", "--pid", "--fork", "--kill-child", "chroot", root, "bash", "-m", "-c", _IMPORT)
    (root / "images.tar").unlink()


def _merge_usr(folder: Path) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):
        (folder / "usr" / name).mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(f"usr/{name}")


def _busybox(root: Path, layer: Path) -> None:
    shutil.copy(root / "bin/busybox", layer / "usr/bin")
    for applet in _APPLETS:
        (layer / "usr/bin" / applet).symlink_to("busybox")
    for folder in ("etc", "run", "tmp"):
        (layer / folder).mkdir()


def _iptables(root: Path, layer: Path) -> None:
    """With the libraries of every xtables module: without libm a Service with two endpoints times out, and nothing says why."""
    modules = next(root.glob("usr/lib/*/xtables"))
    shutil.copytree(modules, layer / modules.relative_to(root), symlinks=True)
    for kind in ("nft", "legacy"):
        program = f"xtables-{kind}-multi"
        shutil.copy(root / "usr/sbin" / program, layer / "usr/sbin")
        for name in _iptables_names(kind):
            (layer / "usr/sbin" / name).symlink_to(program)
    programs = ("/usr/sbin/xtables-nft-multi", "/usr/sbin/xtables-legacy-multi")
    for library in _libraries(root, [*programs, *(f"/{path.relative_to(root)}" for path in modules.glob("*.so"))]):
        target = layer / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_inside(root, library), target)


def _iptables_names(kind: str) -> Iterable[str]:
    for family in ("iptables", "ip6tables"):
        for suffix in ("", "-save", "-restore"):
            yield f"{family}-{kind}{suffix}"
            if kind == "nft":
                yield f"{family}{suffix}"


def _libraries(root: Path, programs: Iterable[str]) -> set[str]:
    output = run("chroot", root, "ldd", *programs)
    return set(re.findall(r"(/\S+\.so\S*) \(0x", output))


def _inside(root: Path, path: str) -> Path:
    """The file that a path means to a process whose root is `root`, through links."""
    return root / run("chroot", root, "readlink", "-f", path).strip().lstrip("/")
