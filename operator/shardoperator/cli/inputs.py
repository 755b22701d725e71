"""Options that many verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shardoperator.cli.output import ExitCode, fail
from shardoperator.errors import ManifestError
from shardoperator.models.manifest import Manifest, load_manifest
from shardoperator.models.values import seconds

if TYPE_CHECKING:
    from shardoperator.controller.targets import Targets

FileOption = Annotated[
    Path, typer.Option("--file", "-f", help="the ShardedCluster manifest, with its Secrets as further documents")
]
SecretsOption = Annotated[
    Path | None, typer.Option("--secrets", help="a folder with a folder for each Secret, a file for each key")
]


def duration(text: str, option: str) -> float:
    """Seconds, or the end with exit code 2."""
    try:
        return seconds(text)
    except ValueError as error:
        fail(f"{option} {text}: {error}", ExitCode.USAGE)


def logins(loaded: Manifest) -> Targets:
    """What the Secrets say; ends with exit code 3 if one can't be read."""
    from shardoperator.controller.targets import targets

    try:
        return targets(loaded.cluster, loaded.secrets)
    except ManifestError as error:
        fail(str(error), ExitCode.UNREADABLE)


def manifest(path: Path, secrets: Path | None) -> Manifest:
    """Read it, or end with exit code 3."""
    try:
        return load_manifest(path, secrets)
    except ManifestError as error:
        fail(str(error), ExitCode.UNREADABLE)
