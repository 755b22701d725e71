"""From everything that is known to what is to be done, and what users see.

Invariant: a running proxy is never removed by an observation: the first deployment waits for its conditions, later ones do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardoperator.models.conditions import ORDER, Condition
from shardoperator.models.observation import ProxyObservation
from shardoperator.models.transitions import moved_numbers
from shardoperator.reconcile.deletion import deletion
from shardoperator.reconcile.inputs import Inputs
from shardoperator.reconcile.shards import shards_reachable, two_phase_ready, wrong_shards
from shardoperator.reconcile.transactions import old_transactions, transactions_resolved
from shardproxy.twophase.evidence import TransactionClass


@dataclass(frozen=True)
class Plan:
    """What this pass does."""

    conditions: tuple[Condition, ...]
    adopt: bool
    """Write the identity rows that are missing."""
    run_proxy: bool
    remove_proxy: bool
    let_go: bool
    """The object is being deleted, and nothing is left to do for it."""

    def condition(self, kind: str) -> Condition:
        """The condition of that type."""
        return next(condition for condition in self.conditions if condition.type == kind)


def plan(inputs: Inputs) -> Plan:
    """Pure."""
    destructive = _destructive(inputs)
    reachable, two_phase = shards_reachable(inputs), two_phase_ready(inputs)
    usable = reachable.status == "True" and (two_phase.status == "True" or two_phase.reason == "NotRequested")
    adopted = inputs.cluster_id is not None
    running = inputs.proxy is not None
    halted = bool(destructive) or inputs.paused or bool(inputs.invalid) or inputs.deleting
    unwanted = inputs.deleting or inputs.cluster.spec.proxy.replicas == 0
    run_proxy = not unwanted and not inputs.paused and (running or (usable and adopted and not halted))
    end = deletion(inputs)
    resolved = transactions_resolved(inputs.report, inputs.cluster.spec.recovery)
    proxy = _proxy_available(inputs)
    conditions = (
        _ready(inputs, reachable, two_phase, proxy, destructive),
        _progressing(inputs, run_proxy=run_proxy),
        _degraded(inputs, two_phase),
        _stalled(inputs, destructive),
        reachable,
        two_phase,
        proxy,
        resolved,
        Condition("Paused", "True" if inputs.paused else "False", "Paused" if inputs.paused else "NotPaused", ""),
        end.condition,
    )
    return Plan(
        conditions,
        adopt=not halted and _adoptable(inputs),
        run_proxy=run_proxy,
        remove_proxy=running and unwanted and not inputs.paused,
        let_go=end.let_go,
    )


def _adoptable(inputs: Inputs) -> bool:
    """All shards are there and installed, none is wrong, and some lack their row."""
    ready = all(shard.reachable and shard.installed and not shard.problems for shard in inputs.shards)
    return ready and not wrong_shards(inputs) and any(shard.identity is None for shard in inputs.shards)


def without_spec(message: str, remembered: Sequence[Condition], *, deleting: bool, forced: bool) -> Plan:
    """Before any spec could be read: what is known stays, nothing is done; a cluster that is deleted waits for a person."""
    known = {condition.type: condition for condition in remembered}
    invalid = {"Ready": "False", "Stalled": "True"}
    conditions = []
    for kind in ORDER:
        if kind in invalid:
            conditions.append(Condition(kind, invalid[kind], "InvalidSpec", message))
        elif kind == "Deleting" and deleting:
            text = "the spec can't be read, so the shards can't be asked what is prepared on them: mend it, or force the deletion"
            conditions.append(Condition(kind, "True", "InDoubtTransactions", text))
        else:
            conditions.append(known.get(kind) or _unknown(kind))
    return Plan(tuple(conditions), adopt=False, run_proxy=False, remove_proxy=deleting, let_go=deleting and forced)


_AT_REST = {"Progressing": "UpToDate", "Degraded": "AsExpected", "Paused": "NotPaused", "Deleting": "NotDeleting"}
_UNKNOWN = {"TwoPhaseReady": "Unknown", "ShardsReachable": "Timeout", "TransactionsResolved": "ScanFailed"}


def _unknown(kind: str) -> Condition:
    if kind in _AT_REST:
        return Condition(kind, "False", _AT_REST[kind], "")
    return Condition(kind, "Unknown", _UNKNOWN.get(kind, "Unavailable"), "could not look: the spec can't be read")


def _destructive(inputs: Inputs) -> str:
    return "; ".join(moved_numbers(inputs.known_numbers or {}, inputs.cluster.spec.numbers))


def _ready(inputs: Inputs, reachable: Condition, two_phase: Condition, proxy: Condition, destructive: str) -> Condition:
    if inputs.deleting:
        return Condition("Ready", "False", "Deleting", "it is being deleted")
    if inputs.invalid or destructive:
        return Condition("Ready", "False", "InvalidSpec", inputs.invalid or destructive)
    if inputs.paused:
        return Condition("Ready", "Unknown", "Paused", "reconciliation is paused")
    if reachable.status != "True":
        return Condition("Ready", "False", "ShardUnreachable", reachable.message)
    if two_phase.status != "True" and two_phase.reason != "NotRequested":
        return Condition("Ready", "False", "PreparedTransactionsDisabled", two_phase.message)
    if inputs.cluster.spec.proxy.replicas == 0:
        return Condition("Ready", "True", "ProxyDisabled", "watching and recovering only: spec.proxy.replicas is 0")
    if inputs.proxy is None or inputs.proxy.ready < 1:
        return Condition("Ready", "False", "ProxyUnavailable", proxy.message)
    return Condition("Ready", "True", "AllShardsReady", "traffic is routed with the guarantees asked for")


def _proxy_available(inputs: Inputs) -> Condition:
    kind, proxy = "ProxyAvailable", inputs.proxy or ProxyObservation()
    if inputs.proxy is None:
        return Condition(kind, "False", "Unavailable", "no proxy runs")
    if proxy.ready < 1:
        message = proxy.message or f"{proxy.ready} of {proxy.desired} proxies are ready"
        return Condition(kind, "False", proxy.reason or "Unavailable", message)
    if proxy.reason:
        return Condition(kind, "False", proxy.reason, proxy.message)
    if inputs.desired_hash and proxy.config_hash != inputs.desired_hash:
        return Condition(kind, "False", "ConfigOutdated", "the proxies do not serve the desired configuration yet")
    return Condition(kind, "True", "MinimumReplicasAvailable", f"{proxy.ready} of {proxy.desired} proxies are ready")


def _progressing(inputs: Inputs, *, run_proxy: bool) -> Condition:
    kind = "Progressing"
    if inputs.paused:
        return Condition(kind, "False", "Paused", "")
    if run_proxy and (inputs.proxy is None or inputs.proxy.ready < inputs.proxy.desired):
        return Condition(kind, "True", "RollingOut", "the proxy is being started")
    if run_proxy and inputs.proxy is not None and inputs.desired_hash and inputs.proxy.config_hash != inputs.desired_hash:
        return Condition(kind, "True", "ConfigReloading", "the proxy takes up a changed configuration")
    return Condition(kind, "False", "UpToDate", "")


def _degraded(inputs: Inputs, two_phase: Condition) -> Condition:
    kind = "Degraded"
    report = inputs.report
    if report is not None:
        doubtful = {TransactionClass.IN_DOUBT, TransactionClass.RESURRECTED}
        stuck = [one for one in old_transactions(report, inputs.cluster.spec.recovery) if one.transaction_class in doubtful]
        if stuck:
            return Condition(kind, "True", "InDoubtTransactions", f"{len(stuck)} prepared transactions are in doubt")
    if inputs.proxy is not None and 0 < inputs.proxy.ready < inputs.proxy.desired:
        message = f"{inputs.proxy.ready} of {inputs.proxy.desired} proxies are ready"
        return Condition(kind, "True", "PartialProxy", message)
    if inputs.proxy is not None and two_phase.reason in ("TooLow", "Disabled", "PendingRestart"):
        return Condition(kind, "True", "PreparedTransactionsTooLow", two_phase.message)
    asked = inputs.cluster.spec.two_phase_commit
    alone = [shard.name for shard in inputs.shards if shard.standbys != "synchronous"]
    if asked.enabled and asked.durability == "replicated" and alone:
        message = (
            f"durability is replicated, and no synchronous standby was seen of {', '.join(alone)}: commits over them are refused"
        )
        return Condition(kind, "True", "PreflightFinding", message)
    servers = [shard.system_identifier for shard in inputs.shards if shard.system_identifier is not None]
    if len(set(servers)) < len(servers):
        return Condition(kind, "True", "SharedServer", "two shards are databases of one server: they fail together")
    return Condition(kind, "False", "AsExpected", "")


def _stalled(inputs: Inputs, destructive: str) -> Condition:
    if inputs.invalid:
        return Condition("Stalled", "True", "InvalidSpec", inputs.invalid)
    if destructive:
        return Condition("Stalled", "True", "DestructiveChange", destructive)
    return Condition("Stalled", "False", "NotStalled", "")
