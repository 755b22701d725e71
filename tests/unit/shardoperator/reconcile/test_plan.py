"""What is done, and what users see, by tables over everything that a visit can find."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from observed import cluster, down, fresh, identity, inputs, lacking, prepared, proxies, report, shard
from shardoperator.models.conditions import ORDER
from shardoperator.models.observation import ShardObservation
from shardoperator.models.spec import ShardedCluster
from shardoperator.reconcile.inputs import Inputs
from shardoperator.reconcile.plan import plan
from shardproxy.twophase.evidence import TransactionClass

Make = Callable[[], Inputs]

_PAUSED = {"pgshepherd.io/paused": "true"}
_NO_TWO_PHASE = {"enabled": False}
_REPLICATED = {"durability": "replicated"}
_STUCK = report(prepared(TransactionClass.IN_DOUBT, 700))


def _replicated(number: int) -> ShardObservation:
    return shard(number, standbys="synchronous")


CASES: list[tuple[str, str, str, Make]] = [
    ("Ready", "True", "AllShardsReady", inputs),
    ("Ready", "True", "AllShardsReady", lambda: inputs(of=cluster(twoPhaseCommit=_NO_TWO_PHASE))),
    ("Ready", "True", "ProxyDisabled", lambda: inputs(of=cluster(proxy={"replicas": 0}), proxy=None)),
    ("Ready", "False", "ProxyUnavailable", lambda: inputs(proxy=proxies(0))),
    ("Ready", "False", "ProxyUnavailable", lambda: inputs(proxy=None)),
    ("Ready", "False", "PreparedTransactionsDisabled", lambda: inputs(shard(0), shard(1, max_prepared_transactions=0))),
    ("Ready", "False", "ShardUnreachable", lambda: inputs(shard(0), down(1))),
    ("Ready", "False", "InvalidSpec", lambda: inputs(known_numbers={"shop-0": 5})),
    ("Ready", "Unknown", "Paused", lambda: inputs(of=cluster(annotations=_PAUSED))),
    ("Ready", "False", "InvalidSpec", lambda: inputs(invalid="spec.shards: Field required")),
    ("Ready", "False", "Deleting", lambda: inputs(of=cluster(deleted=True))),
    ("Progressing", "True", "RollingOut", lambda: inputs(proxy=None)),
    ("Progressing", "True", "RollingOut", lambda: inputs(proxy=proxies(1))),
    ("Progressing", "True", "ConfigReloading", lambda: inputs(proxy=proxies(config_hash="of before"))),
    ("Progressing", "False", "UpToDate", inputs),
    ("Progressing", "False", "UpToDate", lambda: inputs(shard(0), down(1), proxy=None)),
    ("Progressing", "False", "Paused", lambda: inputs(of=cluster(annotations=_PAUSED))),
    ("Degraded", "True", "InDoubtTransactions", lambda: inputs(report=_STUCK)),
    ("Degraded", "True", "InDoubtTransactions", lambda: inputs(report=report(prepared(TransactionClass.RESURRECTED, 700)))),
    ("Degraded", "False", "AsExpected", lambda: inputs(report=report(prepared(TransactionClass.IN_DOUBT, 10)))),
    ("Degraded", "False", "AsExpected", lambda: inputs(report=report(prepared(TransactionClass.FOREIGN, 99999)))),
    ("Degraded", "True", "PreparedTransactionsTooLow", lambda: inputs(shard(0), shard(1, max_prepared_transactions=0))),
    ("Degraded", "True", "PreparedTransactionsTooLow", lambda: inputs(shard(0), shard(1, max_prepared_transactions=33))),
    ("Degraded", "False", "AsExpected", lambda: inputs(shard(0), shard(1, max_prepared_transactions=0), proxy=None)),
    ("Degraded", "True", "PartialProxy", lambda: inputs(proxy=proxies(1))),
    ("Degraded", "False", "AsExpected", lambda: inputs(proxy=proxies(0))),
    ("Degraded", "True", "SharedServer", lambda: inputs(shard(0), _on_server_of_first(1))),
    ("Degraded", "True", "PreflightFinding", lambda: inputs(_replicated(0), shard(1), of=cluster(twoPhaseCommit=_REPLICATED))),
    ("Degraded", "False", "AsExpected", lambda: inputs(_replicated(0), _replicated(1), of=cluster(twoPhaseCommit=_REPLICATED))),
    ("Degraded", "False", "AsExpected", lambda: inputs(of=cluster(twoPhaseCommit=_REPLICATED | _NO_TWO_PHASE))),
    ("Degraded", "False", "AsExpected", inputs),
    ("Stalled", "True", "DestructiveChange", lambda: inputs(known_numbers={"shop-1": 7})),
    ("Stalled", "True", "InvalidSpec", lambda: inputs(invalid="spec.shards: Field required")),
    ("Stalled", "False", "NotStalled", lambda: inputs(known_numbers={"shop-0": 0, "shop-1": 1, "shop-9": 9})),
    ("ProxyAvailable", "True", "MinimumReplicasAvailable", inputs),
    ("ProxyAvailable", "False", "ConfigOutdated", lambda: inputs(proxy=proxies(config_hash="of before"))),
    ("ProxyAvailable", "False", "Unavailable", lambda: inputs(proxy=proxies(0))),
    ("ProxyAvailable", "True", "MinimumReplicasAvailable", lambda: inputs(proxy=proxies(1))),
    ("Ready", "True", "AllShardsReady", lambda: inputs(proxy=proxies(1))),
    ("Ready", "True", "AllShardsReady", lambda: inputs(proxy=proxies(config_hash="of before"))),
    ("ProxyAvailable", "False", "Unavailable", lambda: inputs(proxy=None)),
    ("ProxyAvailable", "False", "ImagePullFailed", lambda: inputs(proxy=proxies(1, reason="ImagePullFailed", message="pod x"))),
    (
        "ProxyAvailable",
        "False",
        "ProgressDeadlineExceeded",
        lambda: inputs(proxy=proxies(reason="ProgressDeadlineExceeded", message="x")),
    ),
    ("Paused", "True", "Paused", lambda: inputs(of=cluster(annotations=_PAUSED))),
    ("Paused", "False", "NotPaused", lambda: inputs(of=cluster(annotations={"pgshepherd.io/paused": "no"}))),
    ("Deleting", "False", "NotDeleting", inputs),
    ("Deleting", "True", "DrainingProxy", lambda: inputs(of=cluster(deleted=True))),
    ("Deleting", "True", "InDoubtTransactions", lambda: inputs(of=cluster(deleted=True), proxy=None, report=_STUCK)),
]


def _on_server_of_first(number: int) -> ShardObservation:
    return shard(number, system_identifier=1000, database_oid=20000 + number, identity=identity(number, system_identifier=1000))


@pytest.mark.parametrize(("kind", "status", "reason", "make"), CASES)
def test_condition(kind: str, status: str, reason: str, make: Make) -> None:
    condition = plan(make()).condition(kind)
    assert (condition.status, condition.reason) == (status, reason)


@pytest.mark.parametrize(
    "make", [inputs, lambda: inputs(down(0), down(1), proxy=None, report=None), *(case[3] for case in CASES)]
)
def test_every_condition_is_there_once_and_a_failure_says_why(make: Make) -> None:
    conditions = plan(make()).conditions
    assert tuple(condition.type for condition in conditions) == ORDER
    bad = [one for one in conditions if one.type in ("Ready", "ShardsReachable", "TwoPhaseReady", "ProxyAvailable")]
    assert all(one.message for one in bad if one.status != "True")


NEVER_REMOVES: list[Make] = [
    lambda: inputs(down(0), down(1)),
    lambda: inputs(down(0, "SecretNotFound"), shard(1), missing_secrets=("Secret recovery",)),
    lambda: inputs(shard(0), shard(1, max_prepared_transactions=0)),
    lambda: inputs(fresh(0), fresh(1)),
    lambda: inputs(shard(0), shard(1, identity=identity(1, cluster="f" * 16))),
    lambda: inputs(shard(0), lacking(1, "MissingPrivilege")),
    lambda: inputs(known_numbers={"shop-0": 3}),
    lambda: inputs(invalid="spec.shards: Field required"),
    lambda: inputs(report=None),
    lambda: inputs(report=_STUCK),
    lambda: inputs(proxy=proxies(0, config_hash="", message="it does not answer")),
]


@pytest.mark.parametrize("make", NEVER_REMOVES)
def test_a_running_proxy_is_never_removed_by_an_observation(make: Make) -> None:
    assert plan(make()).run_proxy


@pytest.mark.parametrize("make", [*NEVER_REMOVES, lambda: inputs(of=cluster(annotations=_PAUSED, proxy={"replicas": 0}))])
def test_nothing_but_the_object_removes_a_proxy(make: Make) -> None:
    assert not plan(make()).remove_proxy


@pytest.mark.parametrize("of", [cluster(proxy={"replicas": 0}), cluster(deleted=True)])
def test_the_object_removes_a_proxy(of: ShardedCluster) -> None:
    decided = plan(inputs(of=of))
    assert (decided.run_proxy, decided.remove_proxy) == (False, True)


def test_paused_means_hands_off_the_proxy() -> None:
    decided = plan(inputs(of=cluster(annotations=_PAUSED)))
    assert (decided.run_proxy, decided.remove_proxy, decided.adopt) == (False, False, False)


FIRST_PROXY: list[tuple[bool, Make]] = [
    (True, lambda: inputs(proxy=None)),
    (True, lambda: inputs(proxy=None, report=None)),
    (True, lambda: inputs(proxy=None, of=cluster(twoPhaseCommit=_NO_TWO_PHASE))),
    (False, lambda: inputs(shard(0), down(1), proxy=None)),
    (False, lambda: inputs(shard(0), shard(1, max_prepared_transactions=33), proxy=None)),
    (False, lambda: inputs(shard(0), shard(1, max_prepared_transactions=None), proxy=None)),
    (False, lambda: inputs(shard(0), fresh(1), proxy=None)),
    (False, lambda: inputs(fresh(0), fresh(1), proxy=None, of=cluster(twoPhaseCommit=_NO_TWO_PHASE))),
    (False, lambda: inputs(shard(0), lacking(1, "NotInstalled"), proxy=None)),
    (False, lambda: inputs(shard(0), shard(1, identity=identity(1, number=4)), proxy=None)),
    (False, lambda: inputs(proxy=None, missing_secrets=("Secret app",))),
    (False, lambda: inputs(proxy=None, known_numbers={"shop-0": 3})),
    (False, lambda: inputs(proxy=None, of=cluster(annotations=_PAUSED))),
    (False, lambda: inputs(proxy=None, of=cluster(proxy={"replicas": 0}))),
    (False, lambda: inputs(proxy=None, of=cluster(deleted=True))),
    (False, lambda: inputs(proxy=None, invalid="spec.shards: Field required")),
]


@pytest.mark.parametrize(("starts", "make"), FIRST_PROXY)
def test_the_first_proxy_waits_for_its_conditions(starts: bool, make: Make) -> None:
    assert plan(make()).run_proxy is starts


ADOPTION: list[tuple[bool, Make]] = [
    (True, lambda: inputs(fresh(0), fresh(1))),
    (True, lambda: inputs(shard(0), fresh(1))),
    (True, lambda: inputs(fresh(0, max_prepared_transactions=0), fresh(1))),
    (False, inputs),
    (False, lambda: inputs(fresh(0), down(1))),
    (False, lambda: inputs(fresh(0), fresh(1, installed=False))),
    (False, lambda: inputs(fresh(0), fresh(1, installed=None))),
    (False, lambda: inputs(fresh(0), lacking(1, "MissingPrivilege"))),
    (False, lambda: inputs(fresh(0), fresh(1, system_identifier=1000))),
    (False, lambda: inputs(fresh(0), shard(1, identity=identity(1, number=2)))),
    (False, lambda: inputs(fresh(0), shard(1, system_identifier=5))),
    (False, lambda: inputs(fresh(0), shard(1), of=cluster(clusterID="f" * 16))),
    (False, lambda: inputs(fresh(0), fresh(1), known_numbers={"shop-0": 3})),
    (False, lambda: inputs(fresh(0), fresh(1), of=cluster(annotations=_PAUSED))),
    (False, lambda: inputs(fresh(0), fresh(1), of=cluster(deleted=True))),
    (False, lambda: inputs(fresh(0), fresh(1), invalid="spec.shards: Field required")),
]


@pytest.mark.parametrize(("adopts", "make"), ADOPTION)
def test_adoption_only_when_safe(adopts: bool, make: Make) -> None:
    assert plan(make()).adopt is adopts
