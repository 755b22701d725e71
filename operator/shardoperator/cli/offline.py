"""render, route, hash: nothing is connected to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from shardoperator.cli.inputs import FileOption, SecretsOption, logins, manifest
from shardoperator.cli.output import ExitCode, console, fail


def render(
    file: FileOption,
    secrets: SecretsOption = None,
    cluster_id: Annotated[str, typer.Option("--cluster-id", help="as shown in status")] = "0" * 16,
    into: Annotated[Path | None, typer.Option("--into", help="a folder for the files; else pgdog.toml is printed")] = None,
) -> None:
    """The proxy's files for a manifest, as the operator would render them.

    Example: pgshepherd render -f shop.yaml --into conf
    """
    from shardoperator.resources.config import Listen, render_config

    loaded = manifest(file, secrets)
    known = logins(loaded)
    if known.proxy is None:
        fail(f"not found: {', '.join(known.missing)}", ExitCode.FINDING)
    identifiers = [1] * len(loaded.cluster.spec.shards)
    files = render_config(loaded.cluster, cluster_id, identifiers, known.proxy, Listen(port=loaded.cluster.spec.proxy.port)).files
    if into is None:
        print(files["pgdog.toml"])
        return
    into.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = into / name
        path.touch(mode=0o600)
        path.write_text(text)
    console.print(
        f"wrote {', '.join(sorted(files))} to {into}; system identifiers are placeholders until the shards were adopted"
    )


def hash_value(
    value: Annotated[str, typer.Argument(help="a sharding key")],
    data_type: Annotated[str, typer.Option("--type", help="bigint, varchar or uuid")] = "bigint",
    shards: Annotated[int, typer.Option("--shards", min=1, max=1024)] = 2,
) -> None:
    """Where a key lives: its hash, and its shard.

    Example: pgshepherd hash 42 --shards 4
    """
    from shardproxy.errors import ConfigError
    from shardproxy.routing.hashing import key_hash
    from shardproxy.routing.keys import from_text

    try:
        key = from_text(data_type, value) if data_type in ("bigint", "varchar", "uuid") else value
        if key is None:
            fail(f"{value!r} is no {data_type}", ExitCode.USAGE)
        hashed = key_hash(data_type, key if isinstance(key, int | str | UUID) else str(key))
    except ConfigError as error:
        fail(str(error), ExitCode.USAGE)
    console.print(f"hash {hashed}, shard {hashed % shards} of {shards}")


def route(
    sql: Annotated[str, typer.Argument(help="one or more statements")],
    shards: Annotated[int, typer.Option("--shards", min=1, max=1024)] = 2,
    key: Annotated[str, typer.Option("--key", help="COLUMN:TYPE of the sharding key")] = "id:bigint",
    table: Annotated[list[str] | None, typer.Option("--table", help="NAME(COLUMN TYPE, ...): a table; may be repeated")] = None,
) -> None:
    """Where statements would go, and why they would be refused; nothing is connected to.

    Example: pgshepherd route "SELECT * FROM t WHERE id = 7" --table "t(id bigint, x text)"
    """
    from shardproxy.errors import SqlError
    from shardproxy.routing.offline import explain

    column, _, data_type = key.partition(":")
    try:
        lines = explain(sql, shards=shards, column=column, data_type=data_type or "bigint", tables=table or [])
    except SqlError as error:
        hint = f"\nHINT: {error.hint}" if error.hint else ""
        fail(f"{error.sqlstate}: {error.message}{hint}", ExitCode.FINDING)
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
