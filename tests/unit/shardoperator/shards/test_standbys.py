"""What replicates a shard, from what a login may see of it."""

from __future__ import annotations

import pytest

from shardoperator.shards.probe import standbys
from shardproxy.config.models import Standbys


@pytest.mark.parametrize(
    ("named", "followers", "synchronous", "slots", "seen"),
    [
        (False, 0, None, False, "none"),
        (False, 1, None, False, "asynchronous"),
        (False, 1, False, False, "asynchronous"),
        (True, 1, None, False, "synchronous"),  # the login may not see which: but every commit waits for one
        (True, 1, True, False, "synchronous"),
        (True, 2, False, False, "asynchronous"),  # the named one is away
        (True, 0, None, False, "none"),
        (True, 0, None, True, "asynchronous"),
        (False, 0, None, True, "asynchronous"),  # its standby will come back
    ],
)
def test_standbys(named: bool, followers: int, synchronous: bool | None, slots: bool, seen: Standbys) -> None:
    assert standbys(named, followers, synchronous, slots) == seen
