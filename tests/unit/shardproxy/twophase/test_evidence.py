"""The judge, by tables: what each pattern of evidence proves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardproxy.twophase.evidence import Next, ShardView, TransactionClass, judge
from shardproxy.twophase.gid import Gid
from shardproxy.twophase.messages import Record

CLUSTER, TXN, EPOCH = "00c0ffee00c0ffee", "0123456789abcdef0123456789abcdef", 5
D, P, Q = 0, 1, 2
MEMBERS = frozenset({D, P, Q})


def gid(shard: int) -> Gid:
    return Gid(CLUSTER, TXN, EPOCH, 1, 1, D, shard)


def view(shard: int, **changes: object) -> ShardView:
    return replace(ShardView(shard, timeline=1), **changes)  # type: ignore[arg-type]


def prepared(shard: int, **changes: object) -> ShardView:
    return view(shard, gids=((gid(shard), "app"),), **changes)


COMMIT, FORGED, TOMBSTONE = Record("commit", "app"), Record("commit", "mallory"), Record("abort", "recovery")
LOST = {"reached": False, "reason": "down"}

CASES = [
    ("D committed", [view(D, record=COMMIT), prepared(P), view(Q)], Next.COMMIT, TransactionClass.COMMITTED),
    ("another member's record", [prepared(D), view(P, record=COMMIT), prepared(Q)], Next.COMMIT, TransactionClass.COMMITTED),
    ("another's record, D away", [view(D, **LOST), view(P, record=COMMIT), prepared(Q)], Next.COMMIT, TransactionClass.COMMITTED),
    ("tombstone", [view(D, record=TOMBSTONE), prepared(P), view(Q)], Next.ROLL_BACK, TransactionClass.ABORTED),
    ("tombstone elsewhere is none", [prepared(D), view(P, record=TOMBSTONE), view(Q)], Next.WIN_ROLLBACK, TransactionClass.ABORTED),
    ("forged record", [view(D, record=FORGED), prepared(P), view(Q)], Next.NOTHING, TransactionClass.IN_DOUBT),
    ("D away", [view(D, **LOST), prepared(P), view(Q)], Next.NOTHING, TransactionClass.UNREACHABLE),
    ("D prepared", [prepared(D), prepared(P), view(Q)], Next.WIN_ROLLBACK, TransactionClass.ABORTED),
    ("D prepared, another away", [prepared(D), prepared(P), view(Q, **LOST)], Next.WIN_ROLLBACK, TransactionClass.ABORTED),
    ("D shows nothing", [view(D), prepared(P), view(Q)], Next.WIN_TOMBSTONE, TransactionClass.ABORTED),
    ("D failed over, D prepared", [prepared(D, timeline=2), prepared(P), view(Q)], Next.ROLL_BACK_DECISION_LAST,
     TransactionClass.ABORTED),
    ("D failed over, all reached", [view(D, timeline=2), prepared(P), view(Q)], Next.WIN_TOMBSTONE, TransactionClass.ABORTED),
    ("D failed over, one away", [view(D, timeline=2), prepared(P), view(Q, **LOST)], Next.NOTHING, TransactionClass.UNREACHABLE),
    ("D is an old primary", [view(D, timeline=0), prepared(P), view(Q)], Next.NOTHING, TransactionClass.UNREACHABLE),
    ("retired, part never left", [view(D, retired=5), prepared(P), view(Q)], Next.ROLL_BACK, TransactionClass.ABORTED),
    ("retired, part's shard failed over", [view(D, retired=5), prepared(P, timeline=2), view(Q)], Next.ROLL_BACK,
     TransactionClass.RESURRECTED),
    ("retired, D failed over, one away", [view(D, retired=5, timeline=2), prepared(P), view(Q, **LOST)], Next.NOTHING,
     TransactionClass.UNREACHABLE),
    ("retired, but D's part is there", [prepared(D, retired=5), prepared(P), view(Q)], Next.WIN_ROLLBACK, TransactionClass.ABORTED),
]  # fmt: skip


@pytest.mark.parametrize(("views", "step", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_judge(views: list[ShardView], step: Next, wanted: TransactionClass) -> None:
    judgement = judge(gid(P), MEMBERS, views, ((gid(P), "app"),))
    assert judgement.next is step
    assert judgement.verdict.transaction_class is wanted
    assert len(judgement.verdict.evidence) == len(views)


def test_a_resurrected_part_is_left_alone() -> None:
    judgement = judge(gid(P), MEMBERS, [view(D, retired=5), prepared(P, timeline=2), view(Q)], ((gid(P), "app"),))
    assert judgement.leave == {P}


def test_an_abort_after_a_failover_is_announced() -> None:
    assert judge(gid(P), MEMBERS, [view(D, timeline=2), prepared(P), view(Q)], ()).audit


def test_a_member_without_a_connection_counts_as_not_reached() -> None:
    judgement = judge(gid(P), MEMBERS, [view(D, timeline=2), prepared(P)], ())
    assert judgement.next is Next.NOTHING
