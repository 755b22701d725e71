"""The condition about prepared transactions: TransactionsResolved."""

from __future__ import annotations

from shardoperator.models.conditions import Condition
from shardoperator.models.observation import PreparedTransaction, RecoveryReport
from shardoperator.models.spec import Recovery
from shardoperator.models.values import seconds
from shardproxy.twophase.evidence import TransactionClass

_KIND = "TransactionsResolved"
LISTED = 5
"""Transactions that a message names."""

_UNDECIDED = frozenset({TransactionClass.IN_DOUBT, TransactionClass.RESURRECTED, TransactionClass.UNREACHABLE})


def transactions_resolved(report: RecoveryReport | None, recovery: Recovery) -> Condition:
    """No prepared transaction of ours is older than the alert age."""
    if report is None:
        return Condition(_KIND, "Unknown", "ScanFailed", "the shards have not been scanned yet")
    if report.losses:
        return Condition(_KIND, "False", "DataLost", "; ".join(report.losses[:LISTED]))
    old = old_transactions(report, recovery)
    if old:
        return Condition(_KIND, "False", _reason(old, recovery), describe(old))
    if report.failed:
        return Condition(
            _KIND, "Unknown", "ScanFailed", "; ".join(f"shard {number}: {why}" for number, why in report.failed[:LISTED])
        )
    return Condition(_KIND, "True", "Clean", f"nothing of ours has been prepared for longer than {recovery.alert_after}")


def old_transactions(report: RecoveryReport, recovery: Recovery) -> list[PreparedTransaction]:
    """Ours above the alert age, oldest first."""
    limit = seconds(recovery.alert_after)
    return sorted((one for one in report.ours() if one.age >= limit), key=lambda one: -one.age)


def _reason(old: list[PreparedTransaction], recovery: Recovery) -> str:
    if any(one.transaction_class in _UNDECIDED for one in old):
        return "DecisionUnknown"
    return "ResolutionForbidden" if recovery.mode == "Observe" else "Resolving"


def describe(transactions: list[PreparedTransaction]) -> str:
    """For a person: which, since when (not for how long: the text must not change while nothing happens), whom they block."""
    lines = []
    for one in transactions[:LISTED]:
        blocks = f", blocks {', '.join(one.blocks[:3])}" if one.blocks else ""
        lines.append(f"{one.gid} on shard {one.shard}: {one.transaction_class.value}, prepared at {one.prepared_at}{blocks}")
    more = f"; and {len(transactions) - LISTED} more" if len(transactions) > LISTED else ""
    return "; ".join(lines) + more
