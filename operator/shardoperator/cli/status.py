"""status: the conditions of a cluster, from Kubernetes or from a running `pgshepherd run`."""

from __future__ import annotations

import json
import urllib.request
from http.client import HTTPException
from typing import Annotated, Any

import typer

from shardoperator.cli.output import ExitCode, Format, OutputOption, console, fail, print_json
from shardoperator.cli.running import HTTP_DEFAULT
from shardoperator.cli.source import ContextOption, KubeconfigOption, NameArgument, NamespaceOption, place_of, read_object
from shardoperator.models.status import remembered
from shardoperator.standalone.tables import conditions_table, stuck_table


def status(
    name: NameArgument = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
    http: Annotated[str, typer.Option("--http", help="HOST:PORT of a running `pgshepherd run`")] = HTTP_DEFAULT,
    output: OutputOption = Format.TABLE,
) -> None:
    """Conditions of a cluster, and what is prepared and in doubt.  Exit code 1 if it is not Ready.

    Example: kubectl pgshepherd status shop -n db

    Example: pgshepherd status  (of `pgshepherd run` on this machine)
    """
    place = place_of(name, namespace, kubeconfig, context)
    if place is not None:
        found = read_object(place)
        data, title = found.get("status") or {}, f"{found['metadata']['namespace']}/{found['metadata']['name']}"
        if not data:
            fail(f"{title} has no status yet: does the operator run?", ExitCode.FINDING)
    else:
        data = _from_http(http)
        title = f"{data['namespace']}/{data['name']}"
    if output is Format.JSON:
        print_json(data)
    else:
        _print(data, title)
    ready = any(one.type == "Ready" and one.status == "True" for one in remembered(data).conditions)
    raise typer.Exit(ExitCode.DONE if ready else ExitCode.FINDING)


def _print(data: dict[str, Any], title: str) -> None:
    console.print(conditions_table(remembered(data).conditions, f"{title}, cluster {data.get('clusterID') or 'not adopted yet'}"))
    stuck = data.get("preparedTransactions") or []
    if stuck:
        console.print(stuck_table(stuck))


def _from_http(http: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://{http}/status", timeout=5) as answer:
            data: dict[str, Any] = json.load(answer)
    except (OSError, HTTPException, ValueError) as error:
        fail(f"no answer from {http}: {error}: is `pgshepherd run` running? Or name a ShardedCluster", ExitCode.FINDING)
    return data
