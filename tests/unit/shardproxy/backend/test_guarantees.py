"""What the proxy refuses or leaves off, by what the operator last saw of the shards' standbys."""

from __future__ import annotations

import pytest

from shardproxy.backend.cluster import Cluster, Guarantees, Shard, SlotBudget
from shardproxy.backend.connection import ShardAddress
from shardproxy.backend.pool import PoolLimits
from shardproxy.config.models import Standbys
from shardproxy.errors import SqlError

LIMITS = PoolLimits(size=1, checkout_timeout=1.0, connect_timeout=1.0, idle_timeout=1.0, lifetime=1.0)


def cluster(guarantees: Guarantees, **standbys: Standbys) -> Cluster:
    shards = [Shard(ShardAddress(number, number, "127.0.0.1", 5432, "shop", 1)) for number in range(3)]
    made = Cluster("00c0ffee00c0ffee", shards, LIMITS, "pgshepherd", SlotBudget(), guarantees)
    made.standbys = {int(name[1:]): seen for name, seen in standbys.items()}
    return made


@pytest.mark.parametrize(("seen", "may"), [("none", True), ("synchronous", True), ("asynchronous", False), ("unknown", False)])
def test_last_agent_is_left_off_where_a_failover_could_lose_it(seen: Standbys, may: bool) -> None:
    assert cluster(Guarantees(last_agent=True), s0=seen).may_be_last_agent(0) is may
    assert not cluster(Guarantees(), s0=seen).may_be_last_agent(0)


def test_last_agent_is_left_off_where_nobody_has_looked() -> None:
    assert not cluster(Guarantees(last_agent=True)).may_be_last_agent(0)


@pytest.mark.parametrize("seen", ["none", "asynchronous", "unknown"])
def test_replicated_is_refused_without_a_synchronous_standby(seen: Standbys) -> None:
    one = cluster(Guarantees(replicated=True), s0="synchronous", s1=seen, s2="synchronous")
    one.check_durability({0, 2})
    with pytest.raises(SqlError, match="shards 1 have no synchronous standby") as refused:
        one.check_durability({0, 1})
    assert refused.value.sqlstate == "55000"


def test_local_asks_for_nothing() -> None:
    cluster(Guarantees()).check_durability({0, 1, 2})
