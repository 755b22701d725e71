"""The shards of one cluster: look at all of them, install what is missing, adopt them.

Invariant: one shard that hangs delays a visit by its own time limit, never another shard.
"""

from __future__ import annotations

import asyncio
import logging
import secrets as random

from shardoperator.controller.targets import Targets
from shardoperator.errors import ShardError
from shardoperator.models.observation import ShardObservation
from shardoperator.models.spec import ShardedCluster
from shardoperator.reconcile.shards import forgotten
from shardoperator.shards.adopt import adopt
from shardoperator.shards.connect import ShardTarget
from shardoperator.shards.install import Logins, install
from shardoperator.shards.probe import probe

log = logging.getLogger("pgshepherd.controller")


async def look(cluster: ShardedCluster, known: Targets, adopted: frozenset[str]) -> tuple[ShardObservation, ...]:
    """All shards at once, by position; where an installer's login is given, what is missing is installed.

    `adopted` names the shards that belonged to the cluster before: one that lost its row is not installed anew.
    """
    positions = range(len(known.recovery))
    return tuple(await asyncio.gather(*(_look_at(cluster, known, position, adopted) for position in positions)))


async def _look_at(cluster: ShardedCluster, known: Targets, position: int, adopted: frozenset[str]) -> ShardObservation:
    target, logins = known.recovery[position], known.logins[position]
    if target is None or logins is None:
        shard = cluster.spec.shards[position]
        missing = f"shard {shard.name}: a Secret is missing: {'; '.join(known.missing)}"
        number = cluster.spec.number(position)
        return ShardObservation(shard.name, number, reachable=False, reason="SecretNotFound", message=missing)
    seen = await probe(target, logins)
    installer = known.installers[position]
    lacking = seen.reachable and any(problem.remedy for problem in seen.problems) and not forgotten(seen, adopted)
    if lacking and installer is not None and (seen.max_prepared_transactions or 0) > 0:
        return await _install(installer, logins, target, seen)
    return seen


async def _install(installer: ShardTarget, logins: Logins, target: ShardTarget, seen: ShardObservation) -> ShardObservation:
    try:
        await install(installer, logins)
    except ShardError as error:
        log.warning("%s", error)
        return seen
    log.info("%s: installed the schema pgshepherd", target.where)
    return await probe(target, logins)


async def adopt_all(cluster: ShardedCluster, known: Targets) -> None:
    """A failure is logged: the next visit tries again."""
    wanted = cluster.spec.cluster_id or random.token_hex(8)
    try:
        cluster_id = await adopt(known.reachable, wanted)
    except ShardError as error:
        log.warning("adoption: %s", error)
    else:
        log.info("adopted %d shards into cluster %s", len(known.reachable), cluster_id)
