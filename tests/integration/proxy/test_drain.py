"""SIGTERM: no new clients, idle ones go, open transactions and commits are finished; and the pages that tell of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest

from bench import PASSWORD, Bench, accounts_on
from programs import http, metric, sessions, total, until
from raw_client import RawClient, query
from shardoperator.standalone.demo.faults import commit_of
from shardoperator.standalone.demo.link import Direction, When


def _terminate(bench: Bench) -> None:
    assert bench.proxy is not None
    os.kill(bench.proxy.pid, signal.SIGTERM)


async def _ended(bench: Bench) -> int:
    assert bench.proxy is not None
    async with asyncio.timeout(20):
        return await bench.proxy.wait()


async def _refuses(bench: Bench) -> bool:
    try:
        client = await RawClient.connect(bench.listen.port)
    except ConnectionError:
        return True
    client.vanish()
    return False


async def test_the_pages(market: Bench) -> None:
    port = market.listen.health_port
    assert await http(port, "/livez") == (200, "ok\n")
    status, body = await http(port, "/readyz")
    state = json.loads(body)
    assert (status, state["ready"], state["reason"]) == (200, True, "Serving")
    assert state["routing_hash"]
    assert (await http(port, "/anything"))[0] == 200, "PgDog's own health check"
    status, text = await http(market.listen.metrics_port, "/metrics")
    assert status == 200
    for name in (
        "clients",
        "server_connections",
        "slots_used",
        "two_phase_transactions_total",
        "non_atomic_commits_total",
        "logins_total",
    ):
        assert f"pgshepherd_proxy_{name}" in text
    assert PASSWORD not in text


async def test_a_drain(shop: Bench) -> None:
    here, there = (shard[0] for shard in accounts_on(2))
    port = shop.listen.port
    idle, busy, late = [await RawClient.login(port, PASSWORD) for _ in range(3)]
    half = await RawClient.connect(port)
    await busy.query(f"BEGIN; INSERT INTO accounts VALUES ({here}, 1)")
    late.send(query("SELECT pg_sleep(0.3)"))
    _terminate(shop)
    (error,) = await idle.ended()
    assert (error.fields["S"], error.fields["C"]) == ("FATAL", "57P01")
    assert await half.ended() == [], "a login that has not ended is not waited for"
    assert await _refuses(shop)
    assert (await late.answer()).tags == ["SELECT 1"]
    assert [message.fields["C"] for message in await late.ended()] == ["57P01"]
    status, body = await http(shop.listen.health_port, "/readyz")
    assert (status, json.loads(body)["reason"]) == (503, "Draining")
    assert (await http(shop.listen.health_port, "/livez"))[0] == 200
    assert (await http(shop.listen.health_port, "/"))[0] == 502
    assert (await busy.query(f"INSERT INTO accounts VALUES ({there}, 2)")).status == "T"
    assert (await busy.query("COMMIT")).tags == ["COMMIT"]
    assert [message.fields["C"] for message in await busy.ended()] == ["57P01"]
    assert await _ended(shop) == 0
    assert await total(shop) == 3
    assert await sessions(shop) == 0
    assert "Traceback" not in shop.log()


async def test_a_commit_in_flight_is_finished(shop: Bench) -> None:
    here, there = (shard[0] for shard in accounts_on(2))
    client = await RawClient.login(shop.listen.port, PASSWORD)
    await client.query(f"BEGIN; INSERT INTO accounts VALUES ({here}, 1); INSERT INTO accounts VALUES ({there}, 2)")
    traps = [link.trap(Direction.TO_SERVER, commit_of(decision=True), When.BEFORE) for link in shop.links]
    client.send(query("COMMIT"))
    hits = [asyncio.create_task(trap.hit.wait()) for trap in traps]
    await asyncio.wait(hits, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    for hit in hits:
        hit.cancel()
    _terminate(shop)

    async def draining() -> bool:
        return await _refuses(shop)

    await until(draining)
    assert len(await shop.prepared()) == 2
    for link in shop.links:
        link.heal()
    assert (await client.answer()).tags == ["COMMIT"]
    assert await _ended(shop) == 0
    assert (await total(shop), await shop.prepared()) == (3, [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_drain_has_an_end(pair: Bench, number: signal.Signals) -> None:
    await pair.start_proxy({"shutdown_timeout": 200})
    client = await RawClient.login(pair.listen.port, PASSWORD)
    await client.query("CREATE TABLE accounts (customer_id bigint PRIMARY KEY, balance bigint)")
    await client.query(
        "BEGIN; INSERT INTO accounts VALUES (1, 1); INSERT INTO accounts VALUES (2, 1); INSERT INTO accounts VALUES (3, 1)"
    )
    assert pair.proxy is not None
    os.kill(pair.proxy.pid, number)
    assert [message.fields["C"] for message in await client.ended()] == ["57P01"]
    assert await _ended(pair) == 0
    assert await total(pair) == 0
    assert "did not end in time" in pair.log()


async def test_metrics_count(shop: Bench) -> None:
    here, there = (shard[0] for shard in accounts_on(2))
    client = await RawClient.login(shop.listen.port, PASSWORD)
    assert await metric(shop, "pgshepherd_proxy_clients") == 1
    outcomes = "pgshepherd_proxy_two_phase_transactions_total"
    before = await metric(shop, outcomes)
    await client.query(f"INSERT INTO accounts VALUES ({here}, 1); INSERT INTO accounts VALUES ({there}, 2)")
    await client.query(f"UPDATE accounts SET balance = 3 WHERE customer_id = {here}")
    assert await metric(shop, outcomes) == before + 1
    assert await metric(shop, "pgshepherd_proxy_slots_used") == 0
    assert await metric(shop, "pgshepherd_proxy_server_connections") >= 2
