"""What goes into the object, and what the next operator reads back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from observed import CLUSTER_ID, down, prepared, proxies, shard
from shardoperator.models.conditions import Condition
from shardoperator.models.observation import RecoveryReport
from shardoperator.models.status import Memory, Status, remembered
from shardproxy.twophase.evidence import TransactionClass as Class

NOW = "2026-01-02T03:04:05Z"
READY = Condition("Ready", "True", "AllShardsReady", "fine", 3, NOW)
STATUS = Status("shop", "db", 3, CLUSTER_ID, (READY,), (shard(0), down(1)), None, proxies(), frozenset({"shop-0"}), "a=b")


def test_the_next_operator_knows_what_this_one_knew() -> None:
    assert remembered(STATUS.to_resource()) == STATUS.memory
    assert STATUS.memory == Memory(CLUSTER_ID, (READY,), {"shop-0": 0, "shop-1": 1}, frozenset({"shop-0"}))


@pytest.mark.parametrize("status", [{}, {"conditions": None, "shards": None}, {"conditions": ["x"], "shards": [{"name": "a"}]}])
def test_what_does_not_fit_is_forgotten(status: dict[str, Any]) -> None:
    assert remembered(status) == Memory()


def test_nothing_changes_while_nothing_happens() -> None:
    one = prepared(Class.IN_DOUBT, 700.0)
    live = prepared(Class.LIVE, 1.0)
    before = replace(STATUS, report=RecoveryReport((one, live)))
    after = replace(STATUS, report=RecoveryReport((replace(one, age=760.0, xid_age=one.xid_age + 5),)))
    assert before.to_resource() == after.to_resource()
    assert before.to_json() != after.to_json(), "on one machine the age is shown as it is now"


def test_what_is_stuck_is_listed_and_counted() -> None:
    classes = [Class.IN_DOUBT, Class.RESURRECTED, Class.UNREACHABLE, Class.LIVE, Class.FOREIGN, Class.COMMITTED, Class.ABORTED]
    found = replace(STATUS, report=RecoveryReport(tuple(prepared(one, 5.0) for one in classes))).to_resource()
    assert found["inDoubt"] == 3
    assert [one["class"] for one in found["preparedTransactions"]] == ["in_doubt", "resurrected", "unreachable"]


def test_summaries() -> None:
    found = STATUS.to_resource()
    assert (found["shardsSummary"], found["proxySummary"], found["replicas"], found["selector"]) == ("1/2", "2/2", 2, "a=b")
