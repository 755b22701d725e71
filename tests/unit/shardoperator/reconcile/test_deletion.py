"""A cluster is let go only when it is certain that nothing of ours is prepared, or when a person forces it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from observed import CLUSTER_ID, cluster, down, fresh, identity, inputs, prepared, report, shard
from shardoperator.models.conditions import ORDER, Condition
from shardoperator.reconcile.deletion import deletion
from shardoperator.reconcile.inputs import Inputs
from shardoperator.reconcile.plan import plan, without_spec
from shardproxy.twophase.evidence import TransactionClass as C

Make = Callable[[], Inputs]
GONE, FORCED = cluster(deleted=True), cluster(deleted=True, annotations={"pgshepherd.io/force-delete": "true"})
NO_LOGIN, OTHERS = down(1, "SecretNotFound"), shard(1, identity=identity(1, cluster="f" * 16))
KNOWN = {"last_cluster_id": CLUSTER_ID}

CASES: list[tuple[bool, str, str, Make]] = [
    (False, "NotDeleting", "", lambda: inputs(proxy=None)),
    (False, "DrainingProxy", "the proxies finish", lambda: inputs(of=GONE)),
    (False, "DrainingProxy", "the proxies finish", lambda: inputs(of=FORCED)),
    (True, "DrainingProxy", "nothing of ours", lambda: inputs(of=GONE, proxy=None)),
    (True, "DrainingProxy", "nothing of ours", lambda: inputs(of=GONE, proxy=None, report=report(prepared(C.FOREIGN, 9)))),
    (False, "InDoubtTransactions", "gid-live-1", lambda: inputs(of=GONE, proxy=None, report=report(prepared(C.LIVE, 1)))),
    (False, "InDoubtTransactions", "gid-in_doubt-1", lambda: inputs(of=GONE, proxy=None, report=report(prepared(C.IN_DOUBT, 1)))),
    (False, "InDoubtTransactions", "force-delete=true", lambda: inputs(of=GONE, proxy=None, report=report(prepared(C.ABORTED, 1)))),
    (False, "InDoubtTransactions", "shard 1 could not", lambda: inputs(of=GONE, proxy=None, report=report(failed=((1, "x"),)))),
    (False, "InDoubtTransactions", "shop-1 has no login", lambda: inputs(shard(0), NO_LOGIN, of=GONE, proxy=None, **KNOWN)),
    (False, "InDoubtTransactions", "could not be asked", lambda: inputs(of=GONE, proxy=None, report=None)),
    (False, "InDoubtTransactions", "do not agree", lambda: inputs(shard(0), fresh(1), of=GONE, proxy=None)),
    (False, "InDoubtTransactions", "do not agree", lambda: inputs(shard(0), OTHERS, of=GONE, proxy=None)),
    (True, "DrainingProxy", "nothing of ours", lambda: inputs(fresh(0), fresh(1), of=GONE, proxy=None, report=None)),
    (True, "DrainingProxy", "forced: gid-in_doubt-1", lambda: inputs(of=FORCED, proxy=None, report=report(prepared(C.IN_DOUBT, 1)))),
    (True, "DrainingProxy", "forced: the shards could not", lambda: inputs(of=FORCED, proxy=None, report=None)),
]  # fmt: skip


@pytest.mark.parametrize(("lets_go", "reason", "words", "make"), CASES)
def test_letting_go(lets_go: bool, reason: str, words: str, make: Make) -> None:
    seen = make()
    end = deletion(seen)
    assert (end.let_go, end.condition.reason, end.condition.status) == (lets_go, reason, str(seen.deleting))
    assert words in end.condition.message
    assert plan(seen).let_go is lets_go


@pytest.mark.parametrize(
    ("deleting", "forced", "lets_go", "reason"),
    [
        (False, False, False, "NotDeleting"),
        (False, True, False, "NotDeleting"),
        (True, False, False, "InDoubtTransactions"),
        (True, True, True, "InDoubtTransactions"),
    ],
)
def test_a_spec_that_was_never_read_is_let_go_only_by_force(deleting: bool, forced: bool, lets_go: bool, reason: str) -> None:
    decided = without_spec("spec.shards: Field required", (), deleting=deleting, forced=forced)
    assert (decided.let_go, decided.condition("Deleting").reason, decided.remove_proxy) == (lets_go, reason, deleting)
    assert (decided.run_proxy, decided.adopt) == (False, False)


def test_without_a_spec_what_is_known_stays_and_the_rest_is_unknown() -> None:
    known = Condition("TwoPhaseReady", "True", "Sufficient", "")
    decided = without_spec("spec.shards: Field required", (known,), deleting=False, forced=False)
    assert tuple(one.type for one in decided.conditions) == ORDER
    assert decided.condition("TwoPhaseReady") == known
    assert decided.condition("TransactionsResolved").status == "Unknown"
    assert decided.condition("ShardsReachable").status == "Unknown"
    for kind in ("Ready", "Stalled"):
        assert (decided.condition(kind).reason, decided.condition(kind).message) == ("InvalidSpec", "spec.shards: Field required")
