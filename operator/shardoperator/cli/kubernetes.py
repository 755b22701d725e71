"""operator: the operator on Kubernetes."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from shardoperator.cli.output import ExitCode, fail
from shardoperator.cli.source import ContextOption, KubeconfigOption
from shardoperator.errors import KubernetesError


def operator(
    proxy_image: Annotated[
        str, typer.Option("--proxy-image", envvar="PGSHEPHERD_PROXY_IMAGE", help="image of the proxies")
    ] = "pgshepherd/proxy:dev",
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", help="watch only this one; repeat; default: all")
    ] = None,
    lease_namespace: Annotated[str, typer.Option("--lease-namespace", help="default: that of the pod")] = "",
    interval: Annotated[float, typer.Option("--interval", min=0.2, help="seconds between two visits of a cluster")] = 5.0,
    http: Annotated[str, typer.Option("--http", help="HOST:PORT for probes and metrics")] = "0.0.0.0:8080",
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """The operator on Kubernetes: watches ShardedClusters, deploys their proxies, resolves what a lost proxy left behind.

    Outside a cluster by a kubeconfig, inside one by its ServiceAccount.  Several may run: one works, by a Lease.

    Example: pgshepherd operator --kubeconfig ~/.kube/config --proxy-image registry.example/pgshepherd/proxy:0.1
    """
    import asyncio

    from shardoperator.handlers.clusters import Settings
    from shardoperator.handlers.operator import OperatorOptions, run_operator

    host, _, port = http.rpartition(":")
    if not port.isdigit():
        fail(f"--http takes HOST:PORT, not {http!r}", ExitCode.USAGE)
    quiet_libraries()
    options = OperatorOptions(
        Settings(proxy_image, interval),
        namespaces=tuple(namespace or ()),
        lease_namespace=lease_namespace,
        kubeconfig=kubeconfig,
        context=context,
        http_host=host,
        http_port=int(port),
    )
    try:
        raise typer.Exit(asyncio.run(run_operator(options)))
    except KubernetesError as error:
        fail(str(error), ExitCode.UNREADABLE)
    except OSError as error:
        fail(f"can't listen on {http}: {error.strerror}: choose another by --http", ExitCode.FINDING)


def quiet_libraries() -> None:
    """Ours from INFO on; kopf's debug lines hold whole objects, Secrets among them, so they are never written."""
    logging.getLogger("pgshepherd").setLevel(min(logging.getLogger().level, logging.INFO))
    for name in ("kopf", "kubernetes", "aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
