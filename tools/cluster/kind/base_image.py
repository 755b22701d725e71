"""A base for Dockerfiles where no image can be pulled: Debian 12 with Python 3.11, as the argument BASE_IMAGE.

It answers to the same commands as the official slim Python image: `python`, and `pip install` without a virtual environment.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tools.cluster.cache import cache, made
from tools.cluster.kind.debian import debootstrap, pack
from tools.cluster.say import step

REVISION = 1
"""To be raised when what is in the image changes: then it is built anew everywhere."""

IMAGE = f"pgshepherd.test/python:3.11-bookworm-{REVISION}"
CHANGES = ("ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin LANG=C.UTF-8", 'CMD ["python3"]')
"""For `docker import --change`."""

_PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates", "tzdata")


def base_archive() -> Path:
    """The image's packed root file system, built if need be."""
    return made(cache("images", f"python-3.11-bookworm-{REVISION}"), _build) / "root.tar.zst"


def _build(folder: Path) -> None:
    root = folder / "root"
    with step(f"building the base image into {cache('images')}", "once; about a minute"):
        debootstrap(root, _PACKAGES)
        (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()  # it forbids pip outside a virtual environment
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        pack(root, folder / "root.tar.zst")
        shutil.rmtree(root)
