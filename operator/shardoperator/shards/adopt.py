"""Adoption: each shard learns for ever which cluster it belongs to and what its number is.

Invariant: one cluster never gets two ids.  Whoever adopts first writes the shard with the lowest number first, and that row is
write-once; everybody then takes the id that stands there, so adopters may race and die anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from shardoperator.errors import ShardError
from shardoperator.shards.connect import ShardTarget, close, connect, fetch
from shardproxy.twophase import records

_INSERT = f"""
INSERT INTO pgshepherd.shard (cluster, name, number, members, schema_version, system_identifier, epoch, epoch_since, retired,
                              compared_timeline)
SELECT $1, $2, $3, $4::int[], {records.SCHEMA_VERSION}, (SELECT system_identifier FROM pg_control_system()), 1, clock_timestamp(), 0,
       ('x' || {records.TIMELINE})::bit(32)::int
ON CONFLICT (one) DO NOTHING
"""
_MEMBERS = """
UPDATE pgshepherd.shard SET members = (SELECT array_agg(DISTINCT m ORDER BY m) FROM unnest(members || $1::int[]) m)
WHERE NOT members @> $1::int[]
"""


async def adopt(targets: Sequence[ShardTarget], cluster_id: str) -> str:
    """Adopt all shards, or complete what an earlier adopter began; returns the cluster id that stands on them.

    `cluster_id` is used only if none of them has one.  Raises ShardError: WrongShard for a shard of another cluster or number.
    """
    ordered = sorted(targets, key=lambda target: target.number)
    standing = await _standing(ordered)
    numbers = [target.number for target in ordered]
    chosen = await _adopt_one(ordered[0], standing or cluster_id, numbers)
    for target in ordered[1:]:
        found = await _adopt_one(target, chosen, numbers)
        if found != chosen:
            raise ShardError("WrongShard", f"{target.where} belongs to cluster {found}, {ordered[0].where} to {chosen}")
    return chosen


_FORGET = """
WITH forgotten AS (
  UPDATE pgshepherd.shard SET members = array_remove(members, $1) WHERE $1 = ANY (members) RETURNING cluster
)
INSERT INTO pgshepherd.audit (cluster, shard, action, reason) SELECT cluster, $1, 'forget', $2 FROM forgotten
"""


async def forget(targets: Sequence[ShardTarget], number: int, reason: str) -> None:
    """A member that is gone for ever counts as reached from now on, without evidence; raises ShardError unless all others are there.

    It is known on every shard, so that each of them must forget it; what an earlier attempt began is completed.
    """
    members = {member for target in targets for member in await _members(target)}
    if number not in members:
        raise ShardError("WrongShard", f"no shard knows a member {number}: known are {sorted(members)}")
    missing = members - {number} - {target.number for target in targets}
    if missing:
        raise ShardError("WrongShard", f"every other member must forget it too: no login for {sorted(missing)}")
    for target in targets:
        connection = await connect(target, application="operator")
        try:
            await fetch(connection, _FORGET, number, reason)
        except asyncpg.PostgresError as error:
            raise ShardError("MissingPrivilege", f"{target.where} could not forget it: {error}") from error
        finally:
            close(connection)


async def _members(target: ShardTarget) -> list[int]:
    connection = await connect(target, application="operator")
    try:
        rows = await fetch(connection, "SELECT members, number FROM pgshepherd.shard")
    except asyncpg.PostgresError as error:
        raise ShardError("NotInstalled", f"{target.where} can't be asked for its members: {error}") from error
    finally:
        close(connection)
    if not rows or rows[0]["number"] != target.number:
        raise ShardError("WrongShard", f"{target.where} is not shard {target.number} of an adopted cluster")
    return list(rows[0]["members"])


async def _standing(targets: Sequence[ShardTarget]) -> str | None:
    """The id that some shard has already; every shard must be reached, so that none is overlooked."""
    found: dict[str, str] = {}
    for target in targets:
        connection = await connect(target, application="operator")
        try:
            rows = await fetch(connection, "SELECT cluster FROM pgshepherd.shard")
        except asyncpg.PostgresError as error:
            raise ShardError(
                "NotInstalled", f"{target.where} can't be asked who it is: {error}: run what check --sql prints"
            ) from error
        finally:
            close(connection)
        if rows:
            found[target.name] = rows[0][0]
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name}: {cluster}" for name, cluster in found.items())
        raise ShardError(
            "WrongShard", f"the shards belong to different clusters ({listed}): say which one by spec.clusterID, and adopt"
        )
    return next(iter(found.values()), None)


async def _adopt_one(target: ShardTarget, cluster_id: str, numbers: Sequence[int]) -> str:
    connection = await connect(target, application="operator")
    try:
        await fetch(connection, _INSERT, cluster_id, target.name, target.number, list(numbers))
        await fetch(connection, _MEMBERS, list(numbers))
        row = (await fetch(connection, "SELECT cluster, number FROM pgshepherd.shard"))[0]
    except asyncpg.PostgresError as error:
        raise ShardError("MissingPrivilege", f"{target.where} could not be adopted: {error}") from error
    finally:
        close(connection)
    if row["number"] != target.number:
        raise ShardError("WrongShard", f"{target.where} is shard number {row['number']} of its cluster, not {target.number}")
    cluster: str = row["cluster"]
    return cluster
