"""The one transaction of the model."""

from __future__ import annotations

from functools import cache

from shardproxy.twophase.gid import Gid

TXN, CLUSTER = "ab" * 16, "00c0ffee00c0ffee"
D = 0
"""The decision shard's number."""
EPOCH = 3
"""The epoch that the coordinator has read."""
LAST_EPOCH = EPOCH + 2
"""From here on `EPOCH` may be retired; higher ones would change nothing for this transaction."""
APP, FORGER, RECOVERY = "app", "mallory", "recovery"


@cache
def gid_of(number: int) -> Gid:
    """A participant's GID; all parts began on timeline 1."""
    return Gid(CLUSTER, TXN, EPOCH, 1, 1, D, number)
