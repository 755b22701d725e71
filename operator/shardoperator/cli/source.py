"""Where a verb finds its cluster: a manifest (-f), the shards' DSNs (--dsn), or the Kubernetes API (a name).

Invariant: what can't be read ends the command with exit code 3, and nothing of a Secret is in the message.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from shardoperator.cli.inputs import manifest
from shardoperator.cli.output import ExitCode, fail
from shardoperator.errors import KubernetesError
from shardoperator.models.manifest import Manifest, validation_lines
from shardoperator.models.spec import ShardedCluster

NameArgument = Annotated[str | None, typer.Argument(help="the ShardedCluster's name in Kubernetes", show_default=False)]
OptionalFile = Annotated[Path | None, typer.Option("--file", "-f", help="the ShardedCluster manifest instead")]
NamespaceOption = Annotated[str | None, typer.Option("--namespace", "-n", help="default: that of the kubeconfig's context")]
KubeconfigOption = Annotated[Path | None, typer.Option("--kubeconfig", help="default: $KUBECONFIG, or the usual file")]
ContextOption = Annotated[str | None, typer.Option("--context", help="of the kubeconfig")]


@dataclass(frozen=True)
class Place:
    """One cluster in Kubernetes."""

    name: str
    namespace: str | None = None
    kubeconfig: Path | None = None
    context: str | None = None


def read(file: Path | None, secrets: Path | None, place: Place | None) -> Manifest:
    """The manifest and its Secrets, or the end with exit code 2 or 3."""
    if (file is None) == (place is None):
        fail("give either a manifest (-f FILE) or the name of a ShardedCluster in Kubernetes", ExitCode.USAGE)
    if place is None:
        assert file is not None
        return manifest(file, secrets)
    try:
        return asyncio.run(_from_api(place))
    except KubernetesError as error:
        fail(str(error), ExitCode.UNREADABLE)
    except ValidationError as error:
        fail("\n".join(validation_lines(error)), ExitCode.UNREADABLE)


def read_object(place: Place) -> dict[str, Any]:
    """The object as it stands, or the end with exit code 3."""
    try:
        return asyncio.run(_object(place))
    except KubernetesError as error:
        fail(str(error), ExitCode.UNREADABLE)


async def _from_api(place: Place) -> Manifest:
    from shardoperator.kube.api import connect
    from shardoperator.kube.clusters import read_cluster, read_secrets

    api = await connect(place.kubeconfig, place.context)
    try:
        namespace = place.namespace or api.namespace
        cluster = ShardedCluster.model_validate(await read_cluster(api, namespace, place.name))
        return Manifest(cluster, await read_secrets(api, namespace, cluster.spec))
    finally:
        await api.close()


async def _object(place: Place) -> dict[str, Any]:
    from shardoperator.kube.api import connect
    from shardoperator.kube.clusters import read_cluster

    api = await connect(place.kubeconfig, place.context)
    try:
        return await read_cluster(api, place.namespace or api.namespace, place.name)
    finally:
        await api.close()


def place_of(name: str | None, namespace: str | None, kubeconfig: Path | None, context: str | None) -> Place | None:
    """None where no name was given."""
    return Place(name, namespace, kubeconfig, context) if name is not None else None
