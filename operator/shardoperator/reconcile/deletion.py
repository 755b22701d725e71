"""The end of a ShardedCluster: drain the proxies, resolve what they left, let go.

Invariant: while something of ours may be prepared on a shard nobody lets go of the cluster, unless a person forces it by annotation:
without its ShardedCluster nobody would look for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardoperator.models.conditions import Condition
from shardoperator.names import FORCE_DELETE, PAUSED
from shardoperator.reconcile.inputs import Inputs
from shardoperator.reconcile.transactions import describe

_KIND = "Deleting"
_FORCE = f"kubectl annotate shc {{name}} {FORCE_DELETE}=true lets it go all the same"


@dataclass(frozen=True)
class Deletion:
    """How far the end has come."""

    condition: Condition
    let_go: bool = False
    """Nothing is left to do: the object may disappear."""


def deletion(inputs: Inputs) -> Deletion:
    """Pure."""
    if not inputs.deleting:
        return Deletion(Condition(_KIND, "False", "NotDeleting", ""))
    if inputs.paused:
        text = f"reconciliation is paused: it goes on when the annotation {PAUSED} is removed"
        return Deletion(Condition(_KIND, "True", "DrainingProxy", text))
    if inputs.proxy is not None:
        return Deletion(Condition(_KIND, "True", "DrainingProxy", "the proxies finish what they have decided, and end"))
    if inputs.cluster.metadata.says(FORCE_DELETE):
        return _let_go(f"forced: {left_behind(inputs) or 'nothing of ours is prepared'}")
    left = left_behind(inputs)
    if left:
        remedy = _FORCE.format(name=inputs.cluster.metadata.name)
        return Deletion(Condition(_KIND, "True", "InDoubtTransactions", f"{left}. {remedy}"))
    return _let_go("nothing of ours is prepared on any shard")


def _let_go(message: str) -> Deletion:
    return Deletion(Condition(_KIND, "True", "DrainingProxy", message), let_go=True)


def left_behind(inputs: Inputs) -> str:
    """What of ours is or may be prepared, in words; empty if it is certain that nothing is."""
    if inputs.cluster_id is None and inputs.last_cluster_id is None:
        # A cluster that was never adopted has prepared nothing.
        return "" if all(shard.identity is None for shard in inputs.shards) else "the shards do not agree on their cluster"
    report = inputs.report
    if report is None:
        return "the shards could not be asked what is prepared on them"
    ours = sorted(report.ours(), key=lambda one: one.prepared_at)
    failed = [f"shard {number} could not be asked: {why}" for number, why in report.failed]
    failed.extend(f"shard {shard.name} has no login" for shard in inputs.shards if shard.reason == "SecretNotFound")
    return "; ".join([*([describe(ours)] if ours else []), *failed])
