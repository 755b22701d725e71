"""Root file systems of Debian 12, by debootstrap: nothing but a Debian mirror is needed, no image registry."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tools.cluster.cache import cache
from tools.cluster.kind.packages import ROOT_FILE_SYSTEM, require
from tools.cluster.process import run
from tools.cluster.say import ClusterError, step

_SUITE = "bookworm"
_USELESS = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")


def _mirror() -> list[str]:
    """The mirror that this machine's apt uses for the same suite, else debootstrap's own default."""
    if shutil.which("apt-get") is None:
        return []
    return run("apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {_SUITE}").split()[:1]


def debootstrap(root: Path, packages: Sequence[str]) -> None:
    """A small Debian with these packages."""
    if os.geteuid() != 0:
        raise ClusterError(
            "a root file system can be built by root only: run this as root once, or use a Docker that can pull images"
        )
    require(ROOT_FILE_SYSTEM)
    downloads = cache("debs")
    downloads.mkdir(parents=True, exist_ok=True)
    options = [f"--cache-dir={downloads}", "--variant=minbase", f"--include={','.join(packages)}"]
    (root / "etc/dpkg/dpkg.cfg.d").mkdir(parents=True)
    (root / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")  # a crash costs a build that can be repeated
    with step(f"debootstrap of Debian {_SUITE}", "about a minute"):
        run("debootstrap", *options, _SUITE, root, *_mirror())
    for folder in _USELESS:
        shutil.rmtree(root / folder, ignore_errors=True)
    for folder in ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial"):
        (root / folder).mkdir(parents=True)


def pack(root: Path, archive: Path) -> None:
    """The tree as a tar of zstd, for `docker import`."""
    with step("packing it", "about 10 s"):
        run("tar", "--numeric-owner", "--exclude=./dev/*", "--use-compress-program=zstd -T0 -3", "-C", root, "-cf", archive, ".")
