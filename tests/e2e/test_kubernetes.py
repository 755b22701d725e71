"""The product on a real Kubernetes, from the README's first command to the deletion; the tests stand in the order of a story."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from functools import partial

import pytest

from readme import commands
from shardoperator.models.conditions import ORDER
from shopkind import OPERATOR, PATIENCE, SECTION, SHARDS, Shop, until
from teller import COMMITTED
from tools.cluster.say import say

pytestmark = pytest.mark.timeout(2400)

KILLS = 10
"""Proxies killed at most until one dies in the middle of a commit."""


async def test_five_commands_to_a_ready_cluster(shop: Shop) -> None:
    assert len(commands(SECTION, 0)) == 5
    conditions = await shop.conditions()
    assert list(conditions) == list(ORDER)
    assert conditions["Ready"] == ("True", "AllShardsReady")
    assert conditions["TwoPhaseReady"] == ("True", "Sufficient")
    assert conditions["TransactionsResolved"] == ("True", "Clean")
    await until(partial(_serving, shop, 2))  # Ready asks for one that serves
    for pod in await shop.get("pods", "-l", "pgshepherd.io/cluster=shop"):
        absent = "from importlib.util import find_spec; assert not find_spec('kopf') and not find_spec('kubernetes')"
        await shop.kubectl("exec", pod["metadata"]["name"], "--", "python3", "-c", absent)


async def test_what_the_readme_says_next(shop: Shop) -> None:
    psql, *others = commands(SECTION, 1)
    assert "1 row" in await asyncio.to_thread(shop.shell, psql, "SELECT 'hello';\n")
    status, check = [await asyncio.to_thread(shop.shell, command) for command in others]
    assert "AllShardsReady" in status
    assert check.count("ok  ") == 2


async def test_transfers_over_both_shards_from_a_pod_through_the_service(shop: Shop) -> None:
    await shop.open_accounts()
    await shop.start_client()
    async with shop.transfers(tellers=2) as told:
        await until(lambda: _entries(shop, 20))
    assert COMMITTED in told.values()
    await until(shop.nothing_prepared)
    await shop.audit(told)


async def _entries(shop: Shop, wanted: int) -> bool:
    return int((await shop.sql(SHARDS[0], "SELECT count(*) FROM entries"))[0]) >= wanted


async def test_a_proxy_killed_in_the_middle_of_commits(shop: Shop) -> None:
    before = int((await shop.sql(SHARDS[0], "SELECT count(*) FROM entries"))[0])
    left, resolutions = list[str](), await shop.resolutions()
    async with shop.transfers() as told:
        await until(lambda: _entries(shop, before + 50))
        for turn in range(KILLS):
            await shop.kill_proxy(turn)
            left = await _left_behind(shop)
            if left:
                break
            await until(lambda: _serving(shop, 2))
        assert left, "no kill hit a commit"

        async def resolved() -> bool:
            return not set(left) & set(await shop.prepared())

        await until(resolved)
        after = int((await shop.sql(SHARDS[0], "SELECT count(*) FROM entries"))[0])
        await until(lambda: _entries(shop, after + 50))  # life goes on
    await until(shop.nothing_prepared)
    assert await shop.resolutions() > resolutions, "nothing was left to recovery"
    say(f"the clients were told: {dict(Counter(told.values()))}")
    assert COMMITTED in told.values()
    await shop.audit(told)
    await shop.wait("Ready")
    await until(lambda: _healthy(shop))


async def _left_behind(shop: Shop) -> list[str]:
    """What stayed prepared longer than any live commit takes; recovery leaves it alone for the grace period of 5 s."""
    for _ in range(6):
        if left := await shop.prepared(seconds=2):
            return left
        await asyncio.sleep(0.5)
    return []


async def _healthy(shop: Shop) -> bool:
    conditions = await shop.conditions()
    wanted = {"Ready": "True", "ProxyAvailable": "True", "TransactionsResolved": "True", "Degraded": "False", "Stalled": "False"}
    return all(conditions[kind][0] == status for kind, status in wanted.items())


async def test_events_tell_each_transition_once_and_no_secret(shop: Shop) -> None:
    events = [one for one in await shop.get("events") if one["involvedObject"]["kind"] == "ShardedCluster"]
    assert {("Normal", "AllShardsReady"), ("Normal", "MinimumReplicasAvailable")} <= {(e["type"], e["reason"]) for e in events}
    told = [(one["reason"], one["message"]) for one in events]
    assert len(told) == len(set(told))
    log = await shop.kubectl("logs", "--namespace=pgshepherd", f"--selector={OPERATOR}", "--tail=-1")
    for text in (json.dumps(events), log):
        assert "-password" not in text
    assert "Traceback" not in log


async def test_the_operator_goes_and_comes_back(shop: Shop) -> None:
    async def holder() -> str:
        return str((await shop.get("lease", "pgshepherd-operator", "--namespace=pgshepherd"))["spec"]["holderIdentity"])

    before = await holder()
    await shop.kubectl("delete", "pod", "--namespace=pgshepherd", f"--selector={OPERATOR}", timeout=PATIENCE)
    await shop.kubectl("delete", "pdb", "shop-proxy")

    async def works() -> bool:
        budgets = await shop.get("pdb")
        return bool(budgets) and await holder() != before

    await until(works)
    assert await _healthy(shop)


async def test_three_proxies_and_back(shop: Shop) -> None:
    async with shop.transfers(tellers=4) as told:
        for replicas in (3, 2):
            await shop.kubectl("scale", "shc/shop", f"--replicas={replicas}")
            await until(partial(_serving, shop, replicas))
    await until(shop.nothing_prepared)
    await shop.audit(told)


async def _serving(shop: Shop, replicas: int) -> bool:
    found, pods = await shop.get("shc", "shop"), await shop.get("pods", "-l", "pgshepherd.io/cluster=shop")
    return found["status"]["proxySummary"] == f"{replicas}/{replicas}" and len(pods) == replicas and await _healthy(shop)


async def test_deletion_leaves_nothing(shop: Shop) -> None:
    await shop.kubectl("delete", "shc", "shop", f"--timeout={PATIENCE:.0f}s", timeout=PATIENCE + 10)

    async def gone() -> bool:
        return not await shop.get("all,secrets,pdb,endpointslices,replicasets,pods", "-l", "pgshepherd.io/cluster=shop")

    await until(gone)
    assert await shop.nothing_prepared()
