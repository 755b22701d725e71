"""demo, run, proxy: what runs until it is told to stop, on one machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from shardoperator.cli.inputs import FileOption, SecretsOption, manifest
from shardoperator.cli.output import ExitCode, fail

HTTP_DEFAULT = "127.0.0.1:8090"
"""Where `run` tells its status, and `status` asks for it."""


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="leave it running, and say how to look around")] = False,
) -> None:
    """The whole product in a minute: two PostgreSQL servers, a proxy, a lost coordinator, an alert, a recovery.

    Needs neither Kubernetes nor Docker nor a PostgreSQL; leaves nothing behind.

    Example: pgshepherd demo --keep
    """
    import asyncio

    from shardoperator.standalone.demo.story import run_demo

    raise typer.Exit(asyncio.run(run_demo(keep=keep)))


def run(
    file: FileOption,
    secrets: SecretsOption = None,
    http: Annotated[str, typer.Option("--http", help="HOST:PORT for status, metrics and probes")] = HTTP_DEFAULT,
    state: Annotated[Path | None, typer.Option("--state", help="where the proxy's files and logs go")] = None,
    host: Annotated[str, typer.Option("--host", help="address on which the proxy listens")] = "127.0.0.1",
    metrics_port: Annotated[int, typer.Option("--proxy-metrics-port")] = 9090,
    health_port: Annotated[int, typer.Option("--proxy-health-port")] = 8080,
) -> None:
    """The operator on one machine: watches the shards, runs the proxy, resolves what a lost proxy left behind.

    Example: pgshepherd run -f shop.yaml
    """
    import asyncio

    from shardoperator.resources.config import Listen
    from shardoperator.standalone.platform import DRAIN_TIMEOUT
    from shardoperator.standalone.run import RunOptions, run_cluster

    loaded = manifest(file, secrets)
    name = loaded.cluster.metadata.name
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    http_host, _, http_port = http.rpartition(":")
    if not http_port.isdigit() or int(http_port) > 65535:
        fail(f"--http takes HOST:PORT, not {http!r}", ExitCode.USAGE)
    port, instance = loaded.cluster.spec.proxy.port, f"{name}-proxy-0"
    listen = Listen(host, port, metrics_port, health_port, instance, shutdown_timeout=DRAIN_TIMEOUT)
    options = RunOptions(state or home / "pgshepherd" / name, listen, http_host or "127.0.0.1", int(http_port))
    raise typer.Exit(asyncio.run(run_cluster(loaded, options)))


def proxy(
    config: Annotated[Path, typer.Option("--config", help="pgdog.toml")],
    users: Annotated[Path, typer.Option("--users", help="users.toml")],
    pgshepherd: Annotated[
        Path | None, typer.Option("--pgshepherd", help="pgshepherd.toml; found beside pgdog.toml by default")
    ] = None,
) -> None:
    """The proxy alone, from its files.

    Example: pgshepherd proxy --config pgdog.toml --users users.toml
    """
    from shardproxy.server import main

    logging_reset()
    raise typer.Exit(main(config, users, pgshepherd))


def logging_reset() -> None:
    """The proxy sets its own log format and level."""
    import logging

    for handler in tuple(logging.getLogger().handlers):
        logging.getLogger().removeHandler(handler)
