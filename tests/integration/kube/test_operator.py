"""The operator against a real Kubernetes API and real PostgreSQL servers, under exactly the rights of charts/plain/rbac.yaml.

There is no kubelet at this level: tests/support/kubelet.py plays it, with real proxies.
"""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from typing import Any

import asyncpg
import pytest

from bench import PASSWORD, Servers, accounts_on
from kube import KubectlError
from kubeworld import PATIENCE, Operator, World, until
from shardoperator.models.conditions import ORDER
from shardoperator.shards.connect import ShardTarget
from shardoperator.shards.install import Logins, install
from shardoperator.standalone.demo.faults import commit_of
from shardoperator.standalone.demo.link import When
from shardoperator.standalone.postgres.server import PostgresServer

DEPLOYMENT, SECRET = "shop-proxy", "shop-proxy-config"


async def _ready(world: World) -> None:
    await world.apply()
    await world.wait("Ready")


async def _transfer(world: World, amount: int) -> None:
    (source,), (target,) = accounts_on(2)
    client = await world.client()
    try:
        async with client.transaction():
            await client.execute("UPDATE accounts SET balance = balance - $2 WHERE customer_id = $1", source, amount)
            await client.execute("UPDATE accounts SET balance = balance + $2 WHERE customer_id = $1", target, amount)
    finally:
        await client.close(timeout=5)


async def _open_accounts(world: World) -> None:
    client = await world.client()
    await client.execute("CREATE TABLE accounts (customer_id bigint PRIMARY KEY, balance bigint NOT NULL)")
    for (account,) in accounts_on(2):
        await client.execute("INSERT INTO accounts (customer_id, balance) VALUES ($1, 100)", account)
    await client.close()


async def _balances(world: World) -> list[str]:
    return [await server.psql("SELECT balance FROM accounts", world.database) for server in world.servers]


async def test_from_apply_to_a_transfer_over_both_shards(world: World) -> None:
    await world.apply()
    first = await world.until_reason("Ready", "ProxyUnavailable", "AllShardsReady")
    assert first["observedGeneration"] == 1
    conditions = (await world.object())["status"]["conditions"]
    assert [one["type"] for one in conditions] == list(ORDER), "all conditions from the first visit"
    await world.wait("TwoPhaseReady")
    await world.wait("Ready")
    columns = (await world.kubectl("get", "shc", "shop")).split("\n")[1].split()
    assert columns[:6] == ["shop", "2/2", "True", "1/1", "0", "AllShardsReady"]

    await _open_accounts(world)
    await _transfer(world, 10)
    assert await _balances(world) == ["90", "110"]
    assert not await world.prepared()


async def test_nothing_is_written_while_nothing_changes(world: World) -> None:
    await _ready(world)
    await world.until_reason("Progressing", "UpToDate")
    await asyncio.sleep(4)
    before = await _versions(world)
    await asyncio.sleep(4)
    assert await _versions(world) == before


async def _versions(world: World) -> dict[str, str]:
    objects = [await world.object(), await world.get("deployment", DEPLOYMENT), await world.get("secret", SECRET)]
    return {one["kind"]: one["metadata"]["resourceVersion"] for one in objects if one}


async def test_the_scale_subresource(world: World) -> None:
    await _ready(world)
    await world.kubectl("scale", "shc/shop", "--replicas=2")

    async def scaled() -> bool:
        return bool((await world.object())["status"].get("proxySummary") == "2/2")

    await until(scaled)
    status = (await world.object())["status"]
    assert status["replicas"] == 2
    assert len(json.loads(await world.kubectl("get", "pods", "-l", status["selector"], "-o", "json"))["items"]) == 2


async def test_a_shard_that_stops_comes_back_and_turns_out_to_be_another(world: World, servers: Servers) -> None:
    await _ready(world)
    link = world.links[1]
    link.refusing = True
    link.cut()
    down = await world.until_reason("ShardsReachable", "ConnectionRefused")
    assert (down["status"], "shop-1" in down["message"]) == ("False", True)
    assert (await world.condition("Ready"))["reason"] == "ShardUnreachable"
    assert await world.get("deployment", DEPLOYMENT), "a running proxy is never removed by an observation"
    link.refusing = False
    await world.wait("ShardsReachable")
    await world.wait("Ready")

    other = servers.servers[2]
    await other.psql(f"CREATE DATABASE {world.database}")
    try:
        link.target = other.port
        link.cut()
        wrong = await world.until_reason("ShardsReachable", "WrongShard")
        assert "knows nothing of it now" in wrong["message"]
        assert await other.psql("SELECT to_regclass('pgshepherd.shard') IS NULL", world.database) == "t", (
            "nothing was installed there"
        )
        link.target = world.servers[1].port
        link.cut()
        await world.wait("Ready")
    finally:
        await other.psql(f"DROP DATABASE {world.database} WITH (FORCE)")


async def _copy_identity(world: World, other: PostgresServer) -> None:
    """As a dump and restore of shard 1 would: the row says what it said, on a server that is another."""
    place = ("shop-1", 1, "127.0.0.1", other.port, world.database)
    await install(ShardTarget(*place, other.superuser, other.password), Logins("recovery", "recovery", ("app",)))
    row = await world.servers[1].psql("SELECT quote_literal(s::text) FROM pgshepherd.shard s", world.database)
    await other.psql(f"INSERT INTO pgshepherd.shard SELECT ({row}::pgshepherd.shard).*", world.database)


async def test_a_rotated_secret_rolls_the_proxies(world: World) -> None:
    await _ready(world)
    before = (await world.pod()).name
    try:
        for server in world.servers:
            await server.psql("ALTER ROLE app PASSWORD 'another-of-the-tests'")
        await world.secret("app", password="another-of-the-tests")

        async def rolled() -> bool:
            return (await world.pod()).name != before

        await until(rolled)
        pod = await world.pod()
        client = await asyncpg.connect(f"postgresql://app:another-of-the-tests@{pod.address}:6432/shop", timeout=10)
        assert await client.fetchval("SELECT 1") == 1
        await client.close()
    finally:
        for server in world.servers:
            await server.psql(f"ALTER ROLE app PASSWORD '{PASSWORD}'")


async def test_a_missing_secret_is_said_and_taken_up_when_it_comes(world: World) -> None:
    await world.kubectl("delete", "secret", "recovery")
    await world.apply()
    missing = await world.until_reason("ShardsReachable", "SecretNotFound")
    assert "recovery" in missing["message"]
    await world.secret("recovery", username="recovery", password=PASSWORD)
    await world.wait("Ready")


async def test_an_edited_and_a_deleted_child_are_put_right(world: World) -> None:
    await _ready(world)
    await world.kubectl(
        "patch", "service", DEPLOYMENT, "--type=merge", "-p", '{"spec": {"selector": {"app.kubernetes.io/name": "x"}}}'
    )
    await world.kubectl("delete", "pdb", DEPLOYMENT)
    await world.kubectl("scale", "deployment", DEPLOYMENT, "--replicas=3")

    async def as_wanted() -> bool:
        service, budget = await world.get("service", DEPLOYMENT), await world.get("pdb", DEPLOYMENT)
        deployment = await world.get("deployment", DEPLOYMENT)
        assert service is not None
        assert deployment is not None
        right = service["spec"]["selector"]["app.kubernetes.io/name"] == "pgshepherd"
        return right and budget is not None and deployment["spec"]["replicas"] == 1

    await until(as_wanted)


async def test_an_invalid_spec_is_refused_by_the_api_and_one_that_got_past_it_stalls(world: World, loose_crd: Any) -> None:
    await _ready(world)
    with pytest.raises(KubectlError, match="unique"):
        await world.patch({"spec": {"shards": [world.manifest()["spec"]["shards"][0] | {"name": name} for name in ("a", "b")]}})
    await loose_crd()
    await world.patch({"spec": {"recovery": {"gracePeriod": "soon"}}})
    stalled = await world.until_reason("Stalled", "InvalidSpec")
    assert stalled["status"] == "True"
    assert "gracePeriod" in stalled["message"]
    assert stalled["observedGeneration"] == (await world.object())["metadata"]["generation"]
    assert (await world.condition("Ready"))["reason"] == "InvalidSpec"
    await world.pod()  # still serves
    await world.patch({"spec": {"recovery": {"gracePeriod": "2s"}}})
    await world.until_reason("Stalled", "NotStalled")
    await world.wait("Ready")


async def test_pause(world: World) -> None:
    await _ready(world)
    await world.kubectl("annotate", "shc", "shop", "pgshepherd.io/paused=true")
    await world.wait("Paused")
    await world.kubectl("delete", "pdb", DEPLOYMENT)
    await asyncio.sleep(3)
    assert await world.get("pdb", DEPLOYMENT) is None, "nothing is reconciled while paused"
    await world.kubectl("annotate", "shc", "shop", "pgshepherd.io/paused-")
    await world.until_reason("Paused", "NotPaused")
    await world.wait("Ready")
    assert await world.get("pdb", DEPLOYMENT) is not None


async def test_a_proxy_killed_in_the_middle_of_commit_is_resolved(world: World) -> None:
    await _ready(world)
    await _open_accounts(world)
    traps = [link.trap(*_before_finish()) for link in world.links]
    task = asyncio.create_task(_transfer(world, 10))
    hits = [asyncio.create_task(trap.hit.wait()) for trap in traps]
    await asyncio.wait({task, *hits}, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE)
    assert any(trap.hit.is_set() for trap in traps)
    (pod,) = world.kubelet.running()
    pod.process.send_signal(signal.SIGKILL)
    await pod.process.wait()
    for link in world.links:
        link.cut()
        link.heal()
    for hit in hits:
        hit.cancel()
    await asyncio.gather(task, return_exceptions=True)

    async def resolved() -> bool:
        return not await world.prepared()

    await until(resolved)
    assert await _balances(world) == ["90", "110"], "it was decided"


def _before_finish() -> tuple[Any, Any, When]:
    from shardoperator.standalone.demo.link import Direction

    return Direction.TO_SERVER, commit_of(decision=False), When.BEFORE


async def test_events_on_transitions_counted_and_without_secrets(world: World) -> None:
    await _ready(world)
    events = json.loads(await world.kubectl("get", "events", "-o", "json"))["items"]
    ours = [one for one in events if one["involvedObject"]["kind"] == "ShardedCluster"]
    assert any(one["reason"] == "AllShardsReady" and one["type"] == "Normal" for one in ours)
    names = [(one["reason"], one["message"]) for one in ours]
    assert len(names) == len(set(names))
    assert PASSWORD not in json.dumps(events)
    assert PASSWORD not in json.dumps(await world.object())


async def test_deletion_drains_and_leaves_nothing(world: World) -> None:
    await _ready(world)
    await _open_accounts(world)
    await world.kubectl("delete", "shc", "shop", f"--timeout={PATIENCE:.0f}s", timeout=PATIENCE + 10)
    for kind in ("deployment", "service", "pdb"):
        assert await world.get(kind, DEPLOYMENT) is None, kind
    assert await world.get("secret", SECRET) is None

    async def ended() -> bool:
        return not world.kubelet.pods

    await until(ended)


async def test_deletion_waits_for_what_is_prepared_even_over_a_restart_of_the_operator(world: World, operator: Operator) -> None:
    await _ready(world)
    await world.patch({"spec": {"recovery": {"mode": "Observe"}}})
    await _open_accounts(world)
    gid = await _orphan(world)
    await world.kubectl("delete", "shc", "shop", "--wait=false")
    await world.until_reason("Deleting", "InDoubtTransactions")
    await operator.stop()
    await operator.start()
    await asyncio.sleep(4)
    waiting = await world.until_reason("Deleting", "InDoubtTransactions")
    assert gid in waiting["message"]
    assert "force-delete" in waiting["message"]
    await world.kubectl("annotate", "shc", "shop", "pgshepherd.io/force-delete=true")
    await world.kubectl("wait", "--for=delete", "shc/shop", f"--timeout={PATIENCE:.0f}s", timeout=PATIENCE + 10)
    assert await world.prepared() == [gid], "what was forgotten by force was not touched"
    await world.servers[0].psql(f"ROLLBACK PREPARED '{gid}'", world.database)


async def _orphan(world: World) -> str:
    """A prepared transaction of this cluster that nobody coordinates."""
    from shardproxy.twophase.gid import Gid

    row = await world.servers[0].psql("SELECT cluster FROM pgshepherd.shard", world.database)
    gid = Gid(row, "0" * 31 + "1", 1, 1, 1, 0, 0).text
    await world.servers[0].psql(f"BEGIN; CREATE TABLE left_behind (); PREPARE TRANSACTION '{gid}'", world.database)
    return gid


async def test_the_config_in_the_secret_is_what_the_pod_serves(world: World) -> None:
    await _ready(world)
    secret, deployment = await world.get("secret", SECRET), await world.get("deployment", DEPLOYMENT)
    assert secret is not None
    assert deployment is not None
    ours = base64.b64decode(secret["data"]["pgshepherd.toml"]).decode()
    routing = deployment["spec"]["template"]["metadata"]["annotations"]["pgshepherd.io/routing-hash"]
    assert f'routing_hash = "{routing}"' in ours
    assert secret["metadata"]["ownerReferences"][0]["kind"] == "ShardedCluster"
