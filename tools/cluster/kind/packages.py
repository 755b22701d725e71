"""Debian packages that the tools need on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from tools.cluster.process import run
from tools.cluster.say import ClusterError, step

ENGINE = {"dockerd": "docker.io", "docker": "docker.io", "ip": "iproute2", "unshare": "util-linux", "tini": "tini"}
"""What an engine of our own runs."""

ROOT_FILE_SYSTEM = {"debootstrap": "debootstrap", "zstd": "zstd", "unshare": "util-linux"}
"""What a root file system is built and kept with."""


def require(programs: Mapping[str, str]) -> None:
    """Install the packages of those programs that are missing, or say in one line which they are."""
    missing = sorted({package for program, package in programs.items() if shutil.which(program) is None})
    if not missing:
        return
    names = " ".join(missing)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ClusterError(f"these Debian packages are missing: apt-get install {names}")
    with step(f"installing Debian packages: {names}", "about 20 s"):
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "update", "-qq", env=quiet)
        run("apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing, env=quiet)
