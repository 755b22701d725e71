"""`pgshepherd operator`: the operator on Kubernetes, from its start to its end.

Invariant: whoever lost the lease does nothing more: the process ends, and Kubernetes starts it again as a candidate.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import kopf

from shardoperator.controller.http import Answer, serve
from shardoperator.handlers.clusters import Clusters, Settings
from shardoperator.handlers.registry import registry, settings
from shardoperator.kube import api as kube
from shardoperator.kube.lease import lead

log = logging.getLogger("pgshepherd.operator")

STUCK_AFTER = 120.0
"""Seconds without a finished visit of some cluster after which the process is no longer alive: its loop does not make progress."""


@dataclass(frozen=True)
class OperatorOptions:
    """How `pgshepherd operator` was called."""

    clusters: Settings
    namespaces: tuple[str, ...] = ()
    """Empty: all."""
    lease_namespace: str = ""
    """Empty: that of the pod."""
    kubeconfig: Path | None = None
    context: str | None = None
    http_host: str = "0.0.0.0"  # noqa: S104 - probed by the kubelet, scraped by Prometheus
    http_port: int = 8080


async def run_operator(options: OperatorOptions) -> int:
    """The exit code: 0 after a signal, 1 when the lease was lost; raises KubernetesError if there is no API."""
    api = await kube.connect(options.kubeconfig, options.context)
    clusters = Clusters(api, options.clusters)
    server = await serve(options.http_host, options.http_port, _routes(clusters))
    identity = f"{socket.gethostname()}_{secrets.token_hex(4)}"
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    namespace = options.lease_namespace or kube.own_namespace()
    leading = asyncio.create_task(
        lead(api, namespace, identity, lambda: _follow(clusters, options, stop, identity)), name="lease"
    )
    stopping = asyncio.create_task(stop.wait(), name="signals")
    try:
        await asyncio.wait({leading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set() and not leading.done():
            # A leader ends by itself and gives the lease back; a candidate waits for nothing.
            await asyncio.wait({leading}, timeout=10 if clusters.leading else 0)
    finally:
        for task in (leading, stopping):
            task.cancel()
        await asyncio.gather(leading, stopping, return_exceptions=True)
        server.close()
        await api.close()
    return 0 if stop.is_set() else _exit_code(leading)


def _exit_code(leading: asyncio.Task[bool]) -> int:
    """kopf takes the signals while it runs: work that ended by itself was told to."""
    return 0 if not leading.cancelled() and leading.result() else 1


async def _follow(clusters: Clusters, options: OperatorOptions, stop: asyncio.Event, identity: str) -> None:
    """Watch and visit until told to stop; left to itself, kopf asks for our user's name, and in a pod there is none."""
    clusters.leading = True
    try:
        await kopf.operator(
            registry=registry(clusters),
            settings=settings(namespaced=bool(options.namespaces)),
            standalone=True,
            identity=identity,  # type: ignore[arg-type] # a str by another name, which kopf does not export
            clusterwide=not options.namespaces,
            namespaces=options.namespaces,
            stop_flag=stop,
        )
    finally:
        clusters.leading = False
        with suppress(asyncio.CancelledError):
            await clusters.close()


def _routes(clusters: Clusters) -> dict[str, Callable[[], Answer]]:
    def alive() -> Answer:
        since = clusters.oldest_visit()
        if since > STUCK_AFTER:
            return 503, "text/plain", f"a cluster has not been visited for {since:.0f} s\n".encode()
        return 200, "text/plain", b"ok\n"

    def metrics() -> Answer:
        return 200, "text/plain; version=0.0.4; charset=utf-8", clusters.metrics.text()

    return {"/livez": alive, "/readyz": lambda: (200, "text/plain", b"ok\n"), "/metrics": metrics}
