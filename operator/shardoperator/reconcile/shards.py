"""The conditions about shards: ShardsReachable and TwoPhaseReady."""

from __future__ import annotations

from shardoperator.models.conditions import Condition
from shardoperator.models.observation import ShardObservation
from shardoperator.reconcile.inputs import Inputs

_TWO_PHASE = "TwoPhaseReady"


def shards_reachable(inputs: Inputs) -> Condition:
    """Every shard was logged in to, and is the shard that it was."""
    kind = "ShardsReachable"
    if inputs.missing_secrets:
        return Condition(kind, "False", "SecretNotFound", f"not found: {', '.join(inputs.missing_secrets)}")
    down = [shard for shard in inputs.shards if not shard.reachable]
    if down:
        return Condition(kind, "False", down[0].reason, _all(shard.message for shard in down))
    wrong = wrong_shards(inputs)
    if wrong:
        return Condition(kind, "False", wrong[0][0], _all(message for _, message in wrong))
    return Condition(kind, "True", "Reachable", f"{len(inputs.shards)} of {len(inputs.shards)} shards answer")


def wrong_shards(inputs: Inputs) -> list[tuple[str, str]]:
    """Reason and message for each shard that is not what the spec says: another cluster's, another number, a copy, a double."""
    found: list[tuple[str, str]] = []
    seen: dict[tuple[int | None, int | None], str] = {}
    clusters = {shard.identity.cluster for shard in inputs.shards if shard.identity is not None}
    wanted = inputs.cluster.spec.cluster_id
    for shard in inputs.shards:
        place = (shard.system_identifier, shard.database_oid)
        if None not in place and place in seen:
            found.append(
                ("DuplicateShard", f"shard {shard.name} is the same database as shard {seen[place]}: each needs its own")
            )
        seen.setdefault(place, shard.name)
        if forgotten(shard, inputs.adopted):
            message = (
                f"shard {shard.name} belonged to this cluster and knows nothing of it now: an empty or another database answers in its "
                "place; point the spec at the right one, or run pgshepherd adopt if its data was given up on purpose"
            )
            found.append(("WrongShard", message))
        found.extend(("WrongShard", message) for message in _wrong(shard, clusters, wanted))
    return found


def forgotten(shard: ShardObservation, adopted: frozenset[str]) -> bool:
    """A database without a row of ours where a shard's was before: nothing may be installed there, nor adopted."""
    return shard.reachable and shard.identity is None and shard.name in adopted


def _wrong(shard: ShardObservation, clusters: set[str], wanted: str | None) -> list[str]:
    identity = shard.identity
    if identity is None:
        return []
    messages = []
    if identity.number != shard.number:
        messages.append(
            f"shard {shard.name} is number {identity.number} of its cluster, the spec says {shard.number}: mend the spec"
        )
    if identity.system_identifier != shard.system_identifier:
        messages.append(
            f"shard {shard.name} is another server than the one that was adopted "
            f"(system identifier {shard.system_identifier}, adopted was {identity.system_identifier}): "
            "point the spec at the right server, or run pgshepherd adopt if it was restored on purpose"
        )
    if wanted is not None and identity.cluster != wanted:
        messages.append(f"shard {shard.name} belongs to cluster {identity.cluster}, spec.clusterID says {wanted}")
    elif wanted is None and len(clusters) > 1:
        messages.append(f"shard {shard.name} belongs to cluster {identity.cluster}, another shard to another: set spec.clusterID")
    return messages


def two_phase_ready(inputs: Inputs) -> Condition:
    """max_prepared_transactions suffices on every shard, and the tables are there.  What is surely wrong comes before what is unknown."""
    if not inputs.cluster.spec.two_phase_commit.enabled:
        return Condition(
            _TWO_PHASE, "False", "NotRequested", "spec.twoPhaseCommit.enabled is false: shards commit each for itself"
        )
    slots = [found for position, shard in enumerate(inputs.shards) if (found := _slots(shard, inputs.needed_slots(position)))]
    if slots:
        reason = min((reason for reason, _ in slots), key=_SLOT_REASONS.index)
        return Condition(_TWO_PHASE, "False", reason, _all(message for _, message in slots))
    problems = [problem for shard in inputs.shards for problem in shard.problems]
    if problems:
        return Condition(_TWO_PHASE, "False", problems[0].reason, _all(problem.message for problem in problems))
    unknown = [shard.name for shard in inputs.shards if not shard.reachable or shard.max_prepared_transactions is None]
    if unknown:
        return Condition(_TWO_PHASE, "Unknown", "Unknown", f"could not look at {', '.join(unknown)}")
    lacking = [shard.name for shard in inputs.shards if shard.identity is None]
    if lacking:
        return Condition(_TWO_PHASE, "False", "NotInstalled", f"not adopted yet: {', '.join(lacking)}")
    least = min(shard.max_prepared_transactions or 0 for shard in inputs.shards)
    return Condition(_TWO_PHASE, "True", "Sufficient", f"max_prepared_transactions is {least} or more on every shard")


_SLOT_REASONS = ("Disabled", "TooLow", "PendingRestart")
"""The first of them is shown when shards differ."""


def _slots(shard: ShardObservation, needed: int) -> tuple[str, str] | None:
    """Reason and message, if the shard's server has too few."""
    have = shard.max_prepared_transactions
    if have is None or have >= needed:
        return None
    if shard.pending_restart:
        return "PendingRestart", f"shard {shard.name}: max_prepared_transactions was changed: restart PostgreSQL"
    change = f"ALTER SYSTEM SET max_prepared_transactions = {needed}, and restart PostgreSQL"
    if have == 0:
        return "Disabled", f"shard {shard.name}: max_prepared_transactions is 0: {change}"
    return "TooLow", f"shard {shard.name}: max_prepared_transactions is {have}, {needed} are needed: {change}"


def _all(messages: object) -> str:
    assert hasattr(messages, "__iter__")
    return "; ".join(dict.fromkeys(str(message) for message in messages))[:2000]
