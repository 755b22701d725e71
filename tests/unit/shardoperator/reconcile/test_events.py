"""One transition, one event; the same status in other words gives none."""

from __future__ import annotations

import pytest

from observed import down, inputs, shard
from shardoperator.models.conditions import Condition
from shardoperator.reconcile.events import transitions
from shardoperator.reconcile.plan import plan

DOUBT = "InDoubtTransactions"


def one(kind: str, status: str, reason: str, message: str = "") -> Condition:
    return Condition(kind, status, reason, message)


@pytest.mark.parametrize(
    ("old", "new", "events"),
    [
        ([], [one("Ready", "True", "AllShardsReady", "x")], [(False, "AllShardsReady", "Ready is True: x")]),
        ([], [one("Degraded", "False", "AsExpected"), one("Deleting", "False", "NotDeleting")], []),
        ([one("Ready", "True", "A", "x")], [one("Ready", "True", "A", "y")], []),
        ([one("Ready", "True", "A")], [one("Ready", "False", "B", "y")], [(True, "B", "Ready is False: y")]),
        ([one("Ready", "False", "A")], [one("Ready", "False", "B", "y")], [(True, "B", "Ready is False: y")]),
        ([one("Ready", "Unknown", "A")], [one("Ready", "True", "B")], [(False, "B", "Ready is True")]),
        ([one("ProxyAvailable", "True", "A")], [one("ProxyAvailable", "Unknown", "B")], [(True, "B", "ProxyAvailable is Unknown")]),
        ([one("Degraded", "False", "A")], [one("Degraded", "True", "B")], [(True, "B", "Degraded is True")]),
        ([one("Degraded", "True", "A")], [one("Degraded", "False", "AsExpected")], [(False, "AsExpected", "Degraded is False")]),
        ([one("Progressing", "False", "A")], [one("Progressing", "True", "B")], [(False, "B", "Progressing is True")]),
        ([one("Deleting", "True", "DrainingProxy")], [one("Deleting", "True", DOUBT)], [(True, DOUBT, "Deleting is True")]),
        ([], [one("TwoPhaseReady", "False", "NotRequested")], []),
    ],
)  # fmt: skip
def test_transitions(old: list[Condition], new: list[Condition], events: list[tuple[bool, str, str]]) -> None:
    assert [(event.warning, event.reason, event.message) for event in transitions(old, new)] == events


def test_a_shard_that_goes_away_warns_once() -> None:
    well, ill = plan(inputs()).conditions, plan(inputs(shard(0), down(1))).conditions
    warned = {event.reason for event in transitions(well, ill) if event.warning}
    assert {"Timeout", "ShardUnreachable"} <= warned
    assert transitions(ill, ill) == ()
