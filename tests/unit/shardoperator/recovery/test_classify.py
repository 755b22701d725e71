"""Which prepared transactions are ours: only those that name our cluster and were found on the shard that they name."""

from __future__ import annotations

import pytest

from shardoperator.recovery.classify import foreign, groups, is_ours
from shardoperator.shards.scan import Sighting
from shardproxy.twophase.evidence import TransactionClass
from shardproxy.twophase.gid import Gid, parse

OURS, THEIRS = "00c0ffee00c0ffee", "f" * 16


def gid(shard: int = 0, *, txn: str = "a" * 32, cluster: str = OURS) -> str:
    return Gid(cluster, txn, 1, 1, 1, 0, shard).text


def seen(text: str, *, on: int = 0, age: float = 1.0) -> Sighting:
    return Sighting(on, text, parse(text), "app", "2026-01-01T00:00:00Z", age, "shop", 5, "700")


@pytest.mark.parametrize(
    ("sighting", "ours", "why"),
    [
        (seen(gid()), True, ""),
        (seen(gid(1), on=1), True, ""),
        (seen(gid(1), on=0), False, "names shard 1, but was found on shard 0"),
        (seen(gid(cluster=THEIRS)), False, f"made by the pgshepherd cluster {THEIRS}"),
        (seen("__pgdog_2pc_12345"), False, "not made by pgshepherd"),
        (seen("_1_bWlycm9y"), False, "not made by pgshepherd"),
        (seen(gid()[:-1] + "x"), False, "not made by pgshepherd"),
        (seen(gid().upper()), False, "not made by pgshepherd"),
        (seen(""), False, "not made by pgshepherd"),
    ],
)
def test_ours_or_foreign(sighting: Sighting, ours: bool, why: str) -> None:
    assert is_ours(sighting, OURS) is ours
    described = foreign([sighting], OURS)
    assert [one.transaction_class for one in described] == ([] if ours else [TransactionClass.FOREIGN])
    assert len(groups([sighting], OURS)) == int(ours)
    assert all(one.reason.startswith(why) for one in described)


def test_parts_of_one_transaction_are_a_group_and_the_oldest_comes_first() -> None:
    young, old = "a" * 32, "b" * 32
    sightings = [
        seen(gid(0, txn=young), age=1),
        seen(gid(0, txn=old), age=2),
        seen(gid(1, txn=young), on=1, age=1),
        seen(gid(1, txn=old), on=1, age=9),
        seen("foreign", age=99),
    ]
    found = groups(sightings, OURS)
    assert [(group.txn, group.age, len(group.parts)) for group in found] == [(old, 9, 2), (young, 1, 2)]


def test_nothing() -> None:
    assert groups([], OURS) == []
    assert foreign([], OURS) == []
