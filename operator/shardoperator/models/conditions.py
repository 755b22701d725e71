"""Conditions: what a user watches.

Invariant: all are present from the first visit; lastTransitionTime changes only when the status does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

ORDER = (
    "Ready",
    "Progressing",
    "Degraded",
    "Stalled",
    "ShardsReachable",
    "TwoPhaseReady",
    "ProxyAvailable",
    "TransactionsResolved",
    "Paused",
    "Deleting",
)
"""All types, in the order in which they are shown."""


@dataclass(frozen=True)
class Condition:
    """One condition, as Kubernetes writes them."""

    type: str
    status: str
    """True, False or Unknown."""
    reason: str
    message: str
    observed_generation: int = 0
    last_transition_time: str = ""
    """RFC 3339, UTC."""

    def to_json(self) -> dict[str, object]:
        """As in an object's status."""
        names = {"observed_generation": "observedGeneration", "last_transition_time": "lastTransitionTime"}
        return {names.get(key, key): value for key, value in asdict(self).items()}


def merge(old: Sequence[Condition], new: Sequence[Condition], generation: int, now: str) -> tuple[Condition, ...]:
    """The new conditions with the times of the old where the status is the same."""
    before = {condition.type: condition for condition in old}
    merged = []
    for condition in new:
        previous = before.get(condition.type)
        same = previous is not None and previous.status == condition.status
        time = previous.last_transition_time if same and previous is not None else now
        merged.append(replace(condition, observed_generation=generation, last_transition_time=time))
    return tuple(merged)
