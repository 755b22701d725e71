"""lastTransitionTime moves with the status and with nothing else."""

from __future__ import annotations

from shardoperator.models.conditions import Condition, merge

THEN, NOW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def ready(status: str, reason: str = "Because", message: str = "words") -> Condition:
    return Condition("Ready", status, reason, message)


def test_the_first_time_is_now() -> None:
    (merged,) = merge((), (ready("True"),), 3, NOW)
    assert (merged.last_transition_time, merged.observed_generation) == (NOW, 3)


def test_a_status_that_stays_keeps_its_time_whatever_is_said() -> None:
    old = merge((), (ready("False"),), 1, THEN)
    (merged,) = merge(old, (ready("False", "Other", "other words"),), 2, NOW)
    assert merged == Condition("Ready", "False", "Other", "other words", 2, THEN)


def test_a_status_that_changes_gets_a_new_time() -> None:
    old = merge((), (ready("False"),), 1, THEN)
    (merged,) = merge(old, (ready("Unknown"),), 1, NOW)
    assert merged.last_transition_time == NOW


def test_types_are_merged_each_with_its_own_and_old_ones_go() -> None:
    old = merge((), (ready("True"), Condition("Gone", "True", "x", "")), 1, THEN)
    merged = merge(old, (Condition("Paused", "True", "x", ""), ready("True")), 1, NOW)
    assert [(one.type, one.last_transition_time) for one in merged] == [("Paused", NOW), ("Ready", THEN)]


def test_as_kubernetes_writes_it() -> None:
    (merged,) = merge((), (ready("True"),), 3, NOW)
    assert merged.to_json() == {
        "type": "Ready",
        "status": "True",
        "reason": "Because",
        "message": "words",
        "observedGeneration": 3,
        "lastTransitionTime": NOW,
    }
