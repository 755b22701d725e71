"""Which cluster some DSNs belong to: read from the shards, so that recovery needs nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlsplit

import asyncpg

from shardoperator.errors import ShardError, StandaloneError
from shardoperator.shards.connect import ShardTarget, close, connect, fetch


@dataclass(frozen=True)
class Discovered:
    """A cluster as its shards describe it."""

    cluster: str
    targets: tuple[ShardTarget, ...]
    """With their real names and numbers."""
    members: frozenset[int]
    failed: tuple[tuple[str, str], ...]
    """Where, and why."""


def parse_dsn(dsn: str, index: int) -> ShardTarget:
    """postgresql://user:password@host:port/database; raises StandaloneError without repeating the password."""
    try:
        parts = urlsplit(dsn)
        port = parts.port or 5432
    except ValueError:  # its text may hold the password
        raise StandaloneError(f"--dsn number {index + 1} has a host or port that can't be read") from None
    if parts.query or parts.fragment:
        raise StandaloneError(
            f"--dsn number {index + 1} has parameters behind ? or #, which are not supported; write them in a password as %3F and %23"
        )
    if parts.scheme not in ("postgresql", "postgres") or not parts.hostname or not parts.username or len(parts.path) < 2:
        raise StandaloneError(f"--dsn number {index + 1} is not of the form postgresql://user:password@host:port/database")
    place = (f"dsn-{index}", -1 - index, parts.hostname, port, unquote(parts.path[1:]))
    return ShardTarget(*place, unquote(parts.username), unquote(parts.password or ""))


async def discover(targets: Sequence[ShardTarget]) -> Discovered:
    """Ask every shard who it is; raises ShardError if none answers, or if they belong to different clusters."""
    answers = await asyncio.gather(*(_ask(target) for target in targets))
    failed = tuple((target.where, answer) for target, answer in zip(targets, answers, strict=True) if isinstance(answer, str))
    found = [(target, answer) for target, answer in zip(targets, answers, strict=True) if not isinstance(answer, str)]
    clusters = {answer[0] for _, answer in found}
    if not found:
        raise ShardError("ConnectionRefused", "; ".join(f"{where}: {why}" for where, why in failed))
    if len(clusters) > 1:
        raise ShardError("WrongShard", f"these shards belong to different clusters: {', '.join(sorted(clusters))}")
    known = tuple(replace(target, name=answer[1], number=answer[2]) for target, answer in found)
    if len({target.number for target in known}) < len(known):
        raise ShardError("DuplicateShard", "the same shard was given twice")
    return Discovered(clusters.pop(), known, frozenset(member for _, answer in found for member in answer[3]), failed)


async def _ask(target: ShardTarget) -> tuple[str, str, int, tuple[int, ...]] | str:
    try:
        connection = await connect(target)
    except ShardError as error:
        return str(error)
    try:
        rows = await fetch(connection, "SELECT cluster, name, number, members FROM pgshepherd.shard")
    except (ShardError, asyncpg.PostgresError) as error:
        return f"{target.where} can't be asked who it is: {error}"
    finally:
        close(connection)
    if not rows:
        return f"{target.where} has not been adopted"
    return rows[0]["cluster"], rows[0]["name"], rows[0]["number"], tuple(rows[0]["members"])
