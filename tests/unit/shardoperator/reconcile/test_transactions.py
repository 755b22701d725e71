"""TransactionsResolved: every reason; foreign transactions never touch it, and "could not look" is never healthy."""

from __future__ import annotations

import pytest

from observed import prepared, report
from shardoperator.models.observation import RecoveryReport
from shardoperator.models.spec import Recovery
from shardoperator.reconcile.transactions import LISTED, transactions_resolved
from shardproxy.twophase.evidence import TransactionClass as C

RESOLVE, OBSERVE = (Recovery.model_validate({"alertAfter": "10m", "mode": mode}) for mode in ("Resolve", "Observe"))
OLD, YOUNG = 600.0, 599.0
DOWN = {"failed": ((1, "it does not answer"),)}

CASES: list[tuple[str, str, RecoveryReport | None, Recovery]] = [
    ("Unknown", "ScanFailed", None, RESOLVE),
    ("Unknown", "ScanFailed", report(**DOWN), RESOLVE),
    ("Unknown", "ScanFailed", report(prepared(C.ABORTED, YOUNG), **DOWN), RESOLVE),
    ("True", "Clean", report(), RESOLVE),
    ("True", "Clean", report(prepared(C.LIVE, YOUNG)), RESOLVE),
    ("True", "Clean", report(prepared(C.IN_DOUBT, YOUNG)), RESOLVE),
    ("True", "Clean", report(prepared(C.FOREIGN, 1e9)), RESOLVE),
    ("False", "Resolving", report(prepared(C.ABORTED, OLD)), RESOLVE),
    ("False", "Resolving", report(prepared(C.COMMITTED, OLD)), RESOLVE),
    ("False", "Resolving", report(prepared(C.COMMITTED, OLD), **DOWN), RESOLVE),
    ("False", "ResolutionForbidden", report(prepared(C.COMMITTED, OLD)), OBSERVE),
    ("False", "DecisionUnknown", report(prepared(C.IN_DOUBT, OLD)), RESOLVE),
    ("False", "DecisionUnknown", report(prepared(C.RESURRECTED, OLD)), RESOLVE),
    ("False", "DecisionUnknown", report(prepared(C.UNREACHABLE, OLD)), OBSERVE),
    ("False", "DecisionUnknown", report(prepared(C.ABORTED, OLD), prepared(C.IN_DOUBT, OLD)), RESOLVE),
    ("False", "DataLost", report(losses=("shard 1 lost 7",)), RESOLVE),
]


@pytest.mark.parametrize(("status", "reason", "found", "recovery"), CASES)
def test_transactions_resolved(status: str, reason: str, found: RecoveryReport | None, recovery: Recovery) -> None:
    condition = transactions_resolved(found, recovery)
    assert (condition.status, condition.reason) == (status, reason)
    assert condition.message


def test_the_message_names_the_oldest_and_whom_they_block() -> None:
    many = [prepared(C.IN_DOUBT, OLD + age) for age in range(LISTED + 2)]
    many[-1] = prepared(C.IN_DOUBT, 9999, blocks=("pid 7 (billing)",))
    message = transactions_resolved(report(*many), RESOLVE).message
    assert message.startswith("gid-in_doubt-9999 on shard 0: in_doubt, prepared at 2026-01-01T00:00:00Z, blocks pid 7 (billing)")
    assert message.endswith("and 2 more")
