"""`pgshepherd run` as a process: from servers as they come to Ready, and through what happens to a running cluster."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from bench import PASSWORD
from commands import Operator, condition, gone, operator, pgshepherd
from orphans import orphan
from shardoperator.models.conditions import ORDER
from shardoperator.standalone.demo.link import FaultLink
from shardoperator.standalone.postgres.server import free_port
from yard import Site, Yard


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}


async def query(dsn: str, sql: str) -> Any:
    client = await asyncpg.connect(dsn, timeout=10)
    try:
        return await client.fetchval(sql)
    finally:
        await client.close(timeout=5)


async def until_listens(port: int, *, listens: bool) -> None:
    """Until somebody, or nobody, accepts connections there."""
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                if not listens:
                    return
            else:
                writer.close()
                if listens:
                    return
            await asyncio.sleep(0.05)


ALL_IS_WELL = {
    "Ready": ("True", "AllShardsReady"),
    "Progressing": ("False", "UpToDate"),
    "Degraded": ("False", "AsExpected"),
    "Stalled": ("False", "NotStalled"),
    "ShardsReachable": ("True", "Reachable"),
    "TwoPhaseReady": ("True", "Sufficient"),
    "ProxyAvailable": ("True", "MinimumReplicasAvailable"),
    "TransactionsResolved": ("True", "Clean"),
    "Paused": ("False", "NotPaused"),
    "Deleting": ("False", "NotDeleting"),
}


async def test_from_servers_as_they_come_to_ready(yard: Yard, tmp_path: Path) -> None:
    """The way that the README describes."""
    await yard.disable()
    site = await yard.site(tmp_path)
    async with operator(site.manifest(), tmp_path) as running:
        status = await running.until(lambda _: True)
        assert [one["type"] for one in status["conditions"]] == list(ORDER)
        assert all(one["lastTransitionTime"] and one["observedGeneration"] == 1 for one in status["conditions"])
        assert status["clusterID"] is None
        found = conditions(status)
        assert found["ShardsReachable"] == ("True", "Reachable")
        assert found["TwoPhaseReady"] == ("False", "Disabled")
        assert found["Ready"] == ("False", "PreparedTransactionsDisabled")
        assert found["ProxyAvailable"] == ("False", "Unavailable")
        assert found["TransactionsResolved"] == ("Unknown", "ScanFailed")
        assert running.proxies() == []
        message = condition(status, "TwoPhaseReady")["message"]
        for number, server in enumerate(yard.servers):
            change = re.search(rf"shop-{number}: max_prepared_transactions is 0: (ALTER SYSTEM SET .*?),", message)
            assert change is not None
            await server.psql(change[1])
            await server.restart()
        status = await running.until(lambda seen: conditions(seen)["Ready"] == ("True", "AllShardsReady"))
        assert conditions(status) == ALL_IS_WELL
        assert await site.rows() == [f"{status['clusterID']}|0", f"{status['clusterID']}|1"]
        assert await query(site.dsn, "SELECT 1") == 1
        assert (await pgshepherd("status", "--http", running.http)).code == 0
        await check_log(running, "Ready=False PreparedTransactionsDisabled", "Ready=True AllShardsReady")
        assert await running.end() == 0


async def check_log(running: Operator, *lines: str) -> None:
    """Each of them once, in this order, and no secret."""
    log = await asyncio.to_thread(running.log.read_text)
    places = [log.index(line) for line in lines]
    assert places == sorted(places)
    assert PASSWORD not in log


async def ready(running: Operator) -> dict[str, Any]:
    return await running.until(lambda seen: conditions(seen)["Ready"][0] == "True")


async def test_http(site: Site, tmp_path: Path) -> None:
    async with operator(site.manifest(), tmp_path) as running:
        await ready(running)
        assert await running.get("/livez") == (200, b"ok\n")
        code, metrics = await running.get("/metrics")
        assert code == 200
        assert (
            b'pgshepherd_prepared_transactions{class="foreign",cluster="shop",namespace="default",shard="shop-0"} 0.0' in metrics
        )
        assert (await running.get("/nothing"))[0] == 404
        status = await running.get("/status")
        assert PASSWORD.encode() not in status[1] + metrics


async def test_a_proxy_that_is_killed_comes_back(site: Site, tmp_path: Path) -> None:
    async with operator(site.manifest(), tmp_path) as running:
        await ready(running)
        for _ in range(2):
            (before,) = running.proxies()
            os.kill(before, signal.SIGKILL)
            await running.until_condition("ProxyAvailable", "False", "Unavailable")
            await running.until(lambda seen: conditions(seen)["Ready"][0] == "True")
            assert running.proxies() != [before]
        assert await query(site.dsn, "SELECT 1") == 1


async def test_a_proxy_that_cannot_listen_is_said_and_tried_again(site: Site, tmp_path: Path) -> None:
    taken = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", site.port)
    async with operator(site.manifest(), tmp_path) as running:
        found = condition(
            await running.until(lambda seen: "ended with code" in condition(seen, "ProxyAvailable")["message"]), "ProxyAvailable"
        )
        assert found["reason"] == "Unavailable"
        taken.close()
        await taken.wait_closed()
        await ready(running)


async def test_a_shard_that_stops_and_comes_back(site: Site, tmp_path: Path) -> None:
    async with operator(site.manifest(), tmp_path) as running:
        await ready(running)
        proxies = running.proxies()
        server = site.servers[1]
        await server.crash()
        try:
            found = await running.until_condition("ShardsReachable", "False", "ConnectionRefused")
            assert "shop-1" in found["message"]
            assert "is PostgreSQL running" in found["message"]
            assert "shop-0" not in found["message"]
            status = await running.until(lambda seen: conditions(seen)["Ready"] == ("False", "ShardUnreachable"))
            assert conditions(status)["TwoPhaseReady"] == ("Unknown", "Unknown")
            assert conditions(status)["TransactionsResolved"] == ("Unknown", "ScanFailed")
            assert (await pgshepherd("status", "--http", running.http)).code == 1
            assert running.proxies() == proxies
        finally:
            await server.start()
        await ready(running)
        assert running.proxies() == proxies
        assert conditions(await ready(running))["TransactionsResolved"] == ("True", "Clean")


async def test_a_shard_that_hangs_and_comes_back(site: Site, tmp_path: Path) -> None:
    link = FaultLink(site.servers[1].port)
    await link.start()
    try:
        async with operator(site.manifest(ports=[site.servers[0].port, link.port]), tmp_path) as running:
            await ready(running)
            link.hold()
            await running.until_condition("ShardsReachable", "False", "Timeout")
            link.heal()
            await ready(running)
    finally:
        await link.close()


@pytest.mark.parametrize("decided", [False, True])
async def test_an_orphan_alerts_and_is_resolved(site: Site, tmp_path: Path, decided: bool) -> None:
    manifest = site.manifest(recovery={"gracePeriod": "6s", "alertAfter": "1s"})
    async with operator(manifest, tmp_path) as running:
        status = await ready(running)
        one = await orphan(site.servers, site.database, status["clusterID"], decided=decided)
        found = await running.until_condition("TransactionsResolved", "False", "Resolving")
        assert one.gid(1) in found["message"]
        await running.until_condition("TransactionsResolved", "True", "Clean")
        assert await one.left() == []
        assert await one.exists() == [decided, decided]
        _, metrics = await running.get("/metrics")
        outcome = "committed" if decided else "aborted"
        assert f'pgshepherd_resolutions_total{{cluster="shop",namespace="default",outcome="{outcome}"}}' in metrics.decode()


async def test_in_observe_mode_an_orphan_stays(site: Site, tmp_path: Path) -> None:
    manifest = site.manifest(recovery={"mode": "Observe", "gracePeriod": "0s", "alertAfter": "1s"})
    async with operator(manifest, tmp_path) as running:
        status = await ready(running)
        one = await orphan(site.servers, site.database, status["clusterID"])
        await running.until_condition("TransactionsResolved", "False", "ResolutionForbidden")
        assert await one.left() == [0, 1]
        await running.end()
    assert (await pgshepherd("recover", "-f", str(manifest), "--grace", "0s")).code == 0
    assert await one.left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_no_process_outlives_it(site: Site, tmp_path: Path, number: signal.Signals) -> None:
    """Also not with a client in the middle of a transaction, which a proxy lets finish for a while."""
    async with operator(site.manifest(), tmp_path) as running:
        await ready(running)
        client = await asyncpg.connect(site.dsn, timeout=10)
        await client.execute("BEGIN; SELECT 1" if number == signal.SIGTERM else "SELECT 1")
        code = await running.end(number)
        assert code == (-number if number == signal.SIGKILL else 0)
        await gone(running.proxies)
        await until_listens(site.port, listens=False)
        client.terminate()


async def test_a_signal_before_anything_runs(site: Site, tmp_path: Path) -> None:
    async with operator(site.manifest(installs=False), tmp_path) as running:
        await running.until(lambda seen: conditions(seen)["TwoPhaseReady"] == ("False", "NotInstalled"))
        assert await running.end() == 0


async def test_another_cluster_or_number_is_refused(site: Site, tmp_path: Path) -> None:
    assert (await pgshepherd("adopt", "-f", str(site.manifest()))).code == 1  # nothing installed yet
    async with operator(site.manifest(), tmp_path) as running:
        await ready(running)
        await running.end()
    rows = await site.rows()
    spoils: list[tuple[str, Callable[[str], str]]] = [
        ("UPDATE pgshepherd.shard SET cluster = 'ffffffffffffffff'", lambda row: row.replace(row[:16], "f" * 16)),
        ("UPDATE pgshepherd.shard SET number = 9", lambda row: row.replace("|1", "|9")),
    ]
    for sql, change in spoils:
        await site.servers[1].psql(sql, site.database)
        async with operator(site.manifest(), tmp_path) as running:
            found = await running.until_condition("ShardsReachable", "False", "WrongShard")
            assert "shop-1" in found["message"]
            assert running.proxies() == []
            await running.end()
        assert await site.rows() == [rows[0], change(rows[1])]
        await site.servers[1].psql(f"UPDATE pgshepherd.shard SET cluster = '{rows[1][:16]}', number = 1", site.database)


async def test_an_address_that_is_taken(site: Site, tmp_path: Path) -> None:
    port = free_port()
    taken = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
    ended = await pgshepherd("run", "-f", str(site.manifest()), "--http", f"127.0.0.1:{port}", "--state", str(tmp_path / "state"))
    taken.close()
    assert ended.code == 1
    assert f"can't listen on 127.0.0.1:{port}" in ended.err
    assert "choose another by --http" in ended.err


async def test_a_state_folder_that_cannot_be(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    http = f"127.0.0.1:{free_port()}"
    ended = await pgshepherd("run", "-f", str(site.manifest()), "--http", http, "--state", str(tmp_path / "file" / "state"))
    assert ended.code == 1
    assert "choose another by --state" in ended.err
