"""What a person is told once: the transitions of conditions.

Invariant: one transition gives one event; a condition that only says its old status in other words gives none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardoperator.models.conditions import Condition

_BAD_WHEN_TRUE = frozenset({"Degraded", "Stalled"})
_NEUTRAL = frozenset({"Progressing", "Paused", "Deleting"})
_QUIET = frozenset({"NotDeleting", "NotPaused", "NotStalled", "AsExpected", "UpToDate", "NotRequested"})
"""Reasons that nobody has to be told of on the first visit."""


@dataclass(frozen=True)
class Event:
    """As Kubernetes shows them."""

    warning: bool
    reason: str
    message: str


def transitions(old: Sequence[Condition], new: Sequence[Condition]) -> tuple[Event, ...]:
    """One for each condition whose status or reason is another than before."""
    before = {condition.type: (condition.status, condition.reason) for condition in old}
    found = []
    for condition in new:
        previous = before.get(condition.type)
        if previous == (condition.status, condition.reason) or (previous is None and condition.reason in _QUIET):
            continue
        text = f"{condition.type} is {condition.status}" + (f": {condition.message}" if condition.message else "")
        found.append(Event(_is_warning(condition), condition.reason, text))
    return tuple(found)


def _is_warning(condition: Condition) -> bool:
    if condition.type in _NEUTRAL:
        return condition.reason == "InDoubtTransactions"
    good = "False" if condition.type in _BAD_WHEN_TRUE else "True"
    return condition.status != good and condition.reason != "NotRequested"
