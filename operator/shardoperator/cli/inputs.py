"""Options that many verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shardoperator.cli.output import ExitCode, fail
from shardoperator.errors import ManifestError
from shardoperator.models.manifest import Manifest, load_manifest

FileOption = Annotated[
    Path, typer.Option("--file", "-f", help="the ShardedCluster manifest, with its Secrets as further documents")
]
SecretsOption = Annotated[
    Path | None, typer.Option("--secrets", help="a folder with a folder for each Secret, a file for each key")
]


def manifest(path: Path, secrets: Path | None) -> Manifest:
    """Read it, or end with exit code 3."""
    try:
        return load_manifest(path, secrets)
    except ManifestError as error:
        fail(str(error), ExitCode.UNREADABLE)
