"""Every state that the shipped engine can reach in these scenarios keeps the invariants of docs/commit-protocol.md.

`pytest -s tests/model` prints how many states there were.
"""

from __future__ import annotations

from itertools import combinations

import pytest

from model.actors import commute
from model.scenarios import ALWAYS, NIGHTLY
from model.search import Result, search
from model.world import Scenario


def _check(name: str, scenario: Scenario) -> None:
    result = search(scenario)
    print(f"{name}: {result}")  # noqa: T201
    assert not result.violation, str(result)
    assert not _order_that_matters(result)


def _order_that_matters(result: Result) -> list[str]:
    """Handing in replies at once is sound only if their order does not matter: see `model.actors`."""
    found: list[str] = []
    for number, by_shard in result.world.replies.items():
        actor = result.world.actors.values[number]
        for one, other in combinations(by_shard, 2):
            pairs = ((a, b) for a in by_shard[one] for b in by_shard[other])
            found.extend(f"{a} and {b} in {actor}" for a, b in pairs if not commute(actor, a, b))
    return found


@pytest.mark.parametrize("name", ALWAYS)
@pytest.mark.timeout(600)
def test_the_invariants_hold(name: str) -> None:
    _check(name, ALWAYS[name])


@pytest.mark.nightly
@pytest.mark.parametrize("name", NIGHTLY)
@pytest.mark.timeout(7200)
def test_the_invariants_hold_deeper(name: str) -> None:
    _check(name, NIGHTLY[name])
