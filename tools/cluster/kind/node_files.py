"""Debian's root file system turned into a kind node: what kind's images/base/Dockerfile does, with kind's own files.

Differences, each because tests run where nobody asked for a node: no negative OOM scores (root may lack CAP_SYS_RESOURCE), and
the six machine-wide sysctls that kubelet writes are hidden behind plain files.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from tools.cluster.binaries import KUBERNETES
from tools.cluster.process import run
from tools.cluster.say import ClusterError

PACKAGES = (
    "systemd systemd-sysv conntrack iptables iproute2 ethtool util-linux mount kmod libseccomp2 ca-certificates jq procps "
    "containerd runc containernetworking-plugins socat pigz busybox-static"
).split()

_CNI_PLUGINS = ("host-local", "loopback", "ptp", "portmap")
_USELESS = (
    "usr/lib/cni",
    "usr/bin/containerd-stress",
    "usr/bin/containerd-shim",
    "usr/bin/containerd-shim-runc-v1",
    "usr/lib/udev/hwdb.d",
)
_UNITS_NOT_WANTED = (
    "lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
    "lib/systemd/system/multi-user.target.wants/*",
    "etc/systemd/system/*.wants/*",
    "lib/systemd/system/local-fs.target.wants/*",
    "lib/systemd/system/sockets.target.wants/*udev*",
    "lib/systemd/system/sockets.target.wants/*initctl*",
    "lib/systemd/system/basic.target.wants/*",
)
_HIDE_SYSCTLS = """\
mkdir -p /kind/sysctl
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  copy=/kind/sysctl/$(echo "$name" | tr / _); cat "/proc/sys/$name" > "$copy"; mount --bind "$copy" "/proc/sys/$name"
done
"""
_LAST_STEP = "# we want the command"


def make_node(root: Path, kind: Path, binaries: Path, pause: str) -> None:
    """Add kind's files and Kubernetes; `pause` is the name of the sandbox image."""
    _copy_files(root, kind / "images" / "base" / "files")
    _copy_programs(root, binaries)
    _set_up_systemd(root)
    edit(root / "etc/systemd/system/containerd.service", r"^OOMScoreAdjust=.*\n", "")
    edit(root / "etc/containerd/config.toml", "restrict_oom_score_adj = false", "restrict_oom_score_adj = true")
    edit(root / "etc/containerd/config.toml", r'sandbox_image = ".*"', f'sandbox_image = "{pause}"')
    edit(root / "usr/local/bin/entrypoint", f"^{_LAST_STEP}", _HIDE_SYSCTLS + _LAST_STEP)
    _container_defaults(root)
    (root / "kind/version").write_text(f"v{KUBERNETES}")


def edit(path: Path, pattern: str, replacement: str) -> None:
    """Replace what must be there."""
    text, count = re.subn(pattern, lambda _: replacement, path.read_text(), flags=re.MULTILINE)
    if not count:
        raise ClusterError(f"{path}: nothing matches {pattern!r}: this kind is not the one that the node image is made for")
    path.write_text(text)


def _copy_files(root: Path, files: Path) -> None:
    for source in files.rglob("*"):
        if source.is_file() and source.relative_to(files).parts[0] != "LICENSES":
            target = root / source.relative_to(files)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(0o755 if "bin" in target.parts[len(root.parts) :] else 0o644)
    for folder in ("kind/manifests", "etc/kubernetes/manifests", "opt/cni/bin"):
        (root / folder).mkdir(parents=True, exist_ok=True)


def _copy_programs(root: Path, binaries: Path) -> None:
    for plugin in _CNI_PLUGINS:
        shutil.copy(root / "usr/lib/cni" / plugin, root / "opt/cni/bin")
    (root / "usr/local/bin/containerd").symlink_to("/usr/bin/containerd")
    shutil.copy(binaries / "kube", root / "usr/bin/kube")
    for name in ("kubeadm", "kubectl", "kubelet"):
        (root / "usr/bin" / name).symlink_to("kube")
    for useless in _USELESS:
        run("rm", "-rf", root / useless)


def _set_up_systemd(root: Path) -> None:
    for pattern in _UNITS_NOT_WANTED:
        for unit in root.glob(pattern):
            unit.unlink()
    with (root / "etc/systemd/journald.conf").open("a") as journal:
        journal.write("ReadKMsg=no\n")
    run("chroot", root, "systemctl", "-q", "enable", "kubelet.service", "containerd.service", "undo-mount-hacks.service")
    run("chroot", root, "systemctl", "-q", "mask", "systemd-binfmt.service")


def _container_defaults(root: Path) -> None:
    """kind's base specification of every container."""
    specification = json.loads(run("chroot", root, "ctr", "oci", "spec"))
    hooks = specification.setdefault("hooks", {}).setdefault("createContainer", [])
    hooks.append({"path": "/kind/bin/mount-product-files.sh"})
    del specification["process"]["rlimits"]
    (root / "etc/containerd/cri-base.json").write_text(json.dumps(specification))


def manifest(source: Path, constant: str, images: Mapping[str, str]) -> str:
    """A manifest that kind's Go source holds as a constant, with the images that its other constants name replaced by ours."""
    text = source.read_text().split(f"const {constant} = `", 1)[1].rsplit("`", 1)[0]
    return re.sub(r"`\s*\+\s*(\w+)\s*\+\s*`", lambda match: images[match[1]], text)
