"""What a person may decide: with the evidence always, without any where all was seen, against it only by force."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardoperator.errors import ShardError
from shardoperator.recovery.byhand import Decision, chosen, objection
from shardoperator.shards.scan import Sighting
from shardproxy.twophase.evidence import TransactionClass, Verdict
from shardproxy.twophase.gid import Gid

CLUSTER, TXN = "00c0ffee00c0ffee", "ab" * 16
UNSEEN = ["shard 2: down"]
C, R = Decision.COMMIT, Decision.ROLLBACK


@pytest.mark.parametrize(
    ("decision", "found", "unseen", "says"),
    [
        (C, TransactionClass.COMMITTED, [], ""),
        (C, TransactionClass.COMMITTED, UNSEEN, ""),  # a record that counts is a proof, whoever is away
        (R, TransactionClass.ABORTED, UNSEEN, ""),
        (C, TransactionClass.ABORTED, [], "the evidence says that it is aborted: why"),
        (R, TransactionClass.COMMITTED, [], "the evidence says that it is committed: why"),
        (C, TransactionClass.IN_DOUBT, [], ""),
        (R, TransactionClass.IN_DOUBT, [], ""),
        (R, TransactionClass.RESURRECTED, [], ""),
        (C, TransactionClass.IN_DOUBT, UNSEEN, "what these would show is not known: shard 2: down"),
        (R, TransactionClass.UNREACHABLE, UNSEEN, "what these would show is not known: shard 2: down"),
    ],
)
def test_objection(decision: Decision, found: TransactionClass, unseen: list[str], says: str) -> None:
    assert objection(decision, Verdict(found, "why", ()), unseen) == says


def sighting(gid: Gid | None, owner: str = "app", name: str = "") -> Sighting:
    shard = gid.shard if gid is not None else 0
    return Sighting(shard, gid.text if gid is not None else name, gid, owner, "2026-01-01T00:00:00Z", 10.0, "shop", 1, "7")


ONE = [sighting(Gid(CLUSTER, TXN, 1, 1, 1, 0, shard)) for shard in (0, 1)]
FORGED = sighting(Gid(CLUSTER, TXN, 1, 1, 1, 2, 2), "mallory")
OTHERS = [sighting(Gid("f" * 16, "cd" * 16, 1, 1, 1, 0, 0)), sighting(None, name="xa")]


def test_all_parts_are_chosen_by_the_transaction_or_any_gid() -> None:
    for name in (TXN, *(one.gid for one in ONE)):
        assert chosen(name, [*ONE, *OTHERS], CLUSTER).parts == tuple(ONE)


def test_a_forged_part_makes_the_digits_ambiguous_but_no_gid() -> None:
    with pytest.raises(ShardError, match="name one of these"):
        chosen(TXN, [*ONE, FORGED], CLUSTER)
    assert chosen(ONE[1].gid, [*ONE, FORGED], CLUSTER).parts == tuple(ONE)


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_not_ours_is_never_chosen(other: Sighting) -> None:
    with pytest.raises(ShardError, match="only its own transaction manager"):
        chosen(other.gid, [*ONE, *OTHERS], CLUSTER)
    with pytest.raises(ShardError, match="no prepared transaction"):
        chosen("cd" * 16, [*ONE, *OTHERS], CLUSTER)


def test_a_copy_on_another_shard_is_never_chosen() -> None:
    copy = replace(ONE[1], shard=2)
    with pytest.raises(ShardError, match="only its own transaction manager"):
        chosen(copy.gid, [copy], CLUSTER)
