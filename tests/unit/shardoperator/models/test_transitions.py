"""The named changes on the models; tests/integration/kube/test_crd_equivalence.py makes them on a real API server."""

from __future__ import annotations

import pytest

from cases import CHANGES, Change, manifest, shard
from shardoperator.models.spec import ShardedCluster, Spec
from shardoperator.models.transitions import forbidden_changes


def _spec(given: dict[str, object]) -> Spec:
    return ShardedCluster.model_validate(given).spec


@pytest.mark.parametrize("case", CHANGES.values(), ids=CHANGES.keys())
def test_changes(case: Change) -> None:
    forbidden = forbidden_changes(_spec(case.old), _spec(case.new))
    assert bool(forbidden) == bool(case.says)
    assert case.says in "\n".join(forbidden)


def test_it_names_every_shard_that_moved() -> None:
    old, new = [shard("a"), shard("b"), shard("c")], [shard("a"), shard("c"), shard("d")]
    assert forbidden_changes(_spec(manifest(("spec.shards", old))), _spec(manifest(("spec.shards", new)))) == [
        "spec.shards: shard c was number 2 and can't become 1: a shard's number is fixed for ever",
        "spec.shards: number 1 was shard b's and can't become c's: a shard's number is never another shard's",
        "spec.shards: number 2 was shard c's and can't become d's: a shard's number is never another shard's",
    ]
