"""ShardsReachable and TwoPhaseReady: every reason, and a message with the remedy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from observed import cluster, down, fresh, identity, inputs, lacking, shard
from shardoperator.reconcile.inputs import HEADROOM, Inputs
from shardoperator.reconcile.shards import shards_reachable, two_phase_ready

Make = Callable[[], Inputs]

REASONS_OF_PROBES = [
    "ConnectionRefused",
    "NameNotResolved",
    "Timeout",
    "AuthenticationFailed",
    "TLSError",
    "SecretNotFound",
    "WrongShard",
    "ReadOnlyStandby",
]


@pytest.mark.parametrize("reason", REASONS_OF_PROBES)
def test_a_probes_reason_becomes_the_conditions(reason: str) -> None:
    condition = shards_reachable(inputs(shard(0), down(1, reason)))
    assert (condition.status, condition.reason) == ("False", reason)
    assert "shop-1" in condition.message


def test_all_unreachable_shards_are_named() -> None:
    assert "shop-0" in (message := shards_reachable(inputs(down(0), down(1))).message)
    assert "shop-1" in message


def test_reachable() -> None:
    condition = shards_reachable(inputs())
    assert (condition.status, condition.reason, condition.message) == ("True", "Reachable", "2 of 2 shards answer")


def test_missing_secrets_are_named() -> None:
    condition = shards_reachable(inputs(missing_secrets=("Secret app with the key password",)))
    assert (condition.status, condition.reason) == ("False", "SecretNotFound")
    assert "Secret app with the key password" in condition.message


WRONG: list[tuple[str, str, Make]] = [
    ("DuplicateShard", "shop-0", lambda: inputs(shard(0), shard(1, system_identifier=1000))),
    ("WrongShard", "number 4", lambda: inputs(shard(0), shard(1, identity=identity(1, number=4)))),
    ("WrongShard", "another server", lambda: inputs(shard(0), shard(1, system_identifier=77))),
    ("WrongShard", "set spec.clusterID", lambda: inputs(shard(0), shard(1, identity=identity(1, cluster="f" * 16)))),
    ("WrongShard", "spec.clusterID says", lambda: inputs(of=cluster(clusterID="f" * 16))),
]


@pytest.mark.parametrize(("reason", "words", "make"), WRONG)
def test_a_shard_that_is_not_the_one_it_was(reason: str, words: str, make: Make) -> None:
    condition = shards_reachable(make())
    assert (condition.status, condition.reason) == ("False", reason)
    assert words in condition.message


def test_the_spec_decides_which_of_two_clusters_is_meant() -> None:
    other = shard(1, identity=identity(1, cluster="f" * 16))
    message = shards_reachable(inputs(shard(0), other, of=cluster(clusterID="00c0ffee00c0ffee"))).message
    assert "shop-1" in message
    assert "shop-0" not in message


TWO_PHASE: list[tuple[str, str, str, Make]] = [
    ("True", "Sufficient", "100", inputs),
    (
        "False",
        "Disabled",
        "ALTER SYSTEM SET max_prepared_transactions = 34",
        lambda: inputs(shard(0, max_prepared_transactions=0)),
    ),
    ("False", "TooLow", "max_prepared_transactions is 33, 34 are needed", lambda: inputs(shard(0, max_prepared_transactions=33))),
    ("True", "Sufficient", "34", lambda: inputs(shard(0, max_prepared_transactions=34))),
    ("False", "PendingRestart", "restart", lambda: inputs(shard(0, max_prepared_transactions=0, pending_restart=True))),
    ("False", "NotInstalled", "shop-0", lambda: inputs(lacking(0, "NotInstalled"))),
    ("False", "NotInstalled", "not adopted yet: shop-0", lambda: inputs(fresh(0), shard(1))),
    ("False", "MissingPrivilege", "shop-0", lambda: inputs(lacking(0, "MissingPrivilege"))),
    ("False", "NotRequested", "each for itself", lambda: inputs(of=cluster(twoPhaseCommit={"enabled": False}))),
    ("Unknown", "Unknown", "shop-1", lambda: inputs(shard(0), down(1))),
    ("Unknown", "Unknown", "shop-0", lambda: inputs(shard(0, max_prepared_transactions=None))),
    ("False", "Disabled", "shop-0", lambda: inputs(shard(0, max_prepared_transactions=0), down(1))),
]


@pytest.mark.parametrize(("status", "reason", "words", "make"), TWO_PHASE)
def test_two_phase_ready(status: str, reason: str, words: str, make: Make) -> None:
    condition = two_phase_ready(make())
    assert (condition.status, condition.reason) == (status, reason)
    assert words in condition.message


def test_every_shard_with_too_few_slots_is_named() -> None:
    condition = two_phase_ready(inputs(shard(0, max_prepared_transactions=7), shard(1, max_prepared_transactions=0)))
    assert condition.reason == "Disabled"
    assert "shop-0: max_prepared_transactions is 7" in condition.message
    assert "shop-1: max_prepared_transactions is 0" in condition.message


def test_shards_on_one_server_need_slots_for_both() -> None:
    one = shard(1, system_identifier=1000, database_oid=2, identity=identity(1, system_identifier=1000))
    seen = inputs(shard(0), one)
    assert [seen.needed_slots(position) for position in (0, 1)] == [10 * 3 * 2 + HEADROOM] * 2
    assert inputs(shard(0), down(1)).needed_slots(1) == 10 * 3 + HEADROOM


def test_cluster_id_only_if_it_stands_on_all() -> None:
    assert inputs().cluster_id == "00c0ffee00c0ffee"
    assert inputs(shard(0), fresh(1)).cluster_id is None
    assert inputs(shard(0), down(1)).cluster_id is None
    assert inputs(shard(0), shard(1, identity=identity(1, cluster="f" * 16))).cluster_id is None
