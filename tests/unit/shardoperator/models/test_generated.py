"""What is generated for the API server is worth sending there: right and wrong in fair shares."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from pydantic import ValidationError

from generated import clusters, damaged, successors
from shardoperator.models.spec import ShardedCluster
from shardoperator.models.transitions import forbidden_changes

_SETTINGS = settings(max_examples=150, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


def _valid(given: dict[str, Any]) -> bool:
    try:
        ShardedCluster.model_validate(given)
    except ValidationError:
        return False
    return True


def test_shares() -> None:
    seen: Counter[str] = Counter()

    @_SETTINGS
    @given(clusters(), damaged(), successors())
    def count(whole: dict[str, Any], broken: dict[str, Any], pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
        old, new = pair
        seen["all"] += 1
        seen["whole"] += _valid(whole)
        seen["broken"] += not _valid(broken)
        seen["pairs"] += _valid(old) and _valid(new)
        if _valid(old) and _valid(new):
            specs = (ShardedCluster.model_validate(one).spec for one in pair)
            seen["forbidden"] += bool(forbidden_changes(*specs))

    count()
    assert seen["whole"] > 0.8 * seen["all"]
    assert 0.5 * seen["all"] < seen["broken"] < 0.9 * seen["all"]
    assert seen["pairs"] > 0.4 * seen["all"]
    assert 0.3 * seen["pairs"] < seen["forbidden"] < 0.8 * seen["pairs"]
