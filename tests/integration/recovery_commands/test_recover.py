"""`recover` and `transactions` as a person runs them, from DSNs alone: what could not be looked at is never called clean."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import pytest

from bench import PASSWORD, Bench, Servers, bench
from commands import COMMAND, LIMIT, Ended, pgshepherd
from manifests import Place, write_manifest
from orphans import Orphan, orphan
from shardoperator.standalone.children import die_with_parent
from shardoperator.standalone.postgres.server import free_port

FOREIGN = "_1_of_another_application"


def dsns(of: Bench, *, ports: Sequence[int] = ()) -> list[str]:
    """--dsn for each shard."""
    given = ports or [server.port for server in of.servers]
    return [part for port in given for part in ("--dsn", f"postgresql://recovery:{PASSWORD}@127.0.0.1:{port}/{of.database}")]


async def run(*arguments: str) -> Ended:
    """No secret is in what it says."""
    ended = await pgshepherd(*arguments)
    assert PASSWORD not in ended.said
    return ended


async def lost(pair: Bench, *, decided: bool = False) -> Orphan:
    return await orphan(pair.servers, pair.database, pair.cluster_id, decided=decided)


async def foreign(pair: Bench) -> None:
    await pair.servers[0].psql(f"BEGIN; CREATE TABLE of_others (); PREPARE TRANSACTION '{FOREIGN}'", pair.database)


async def test_nothing_to_do(pair: Bench) -> None:
    assert await run("recover", *dsns(pair)) == Ended(0, "nothing to resolve\n", "")
    assert await run("transactions", "list", *dsns(pair)) == Ended(0, "no prepared transactions\n", "")
    ended = await run("transactions", "list", *dsns(pair), "-o", "json")
    assert (ended.code, json.loads(ended.out)) == (0, [])


@pytest.mark.parametrize("decided", [False, True])
async def test_from_dsns_alone(pair: Bench, decided: bool) -> None:
    one = await lost(pair, decided=decided)
    await foreign(pair)
    ended = await run("recover", *dsns(pair), "--grace", "0s")
    assert ended.code == 0, ended.said
    assert one.txn in ended.out
    assert await one.exists() == [decided, decided]
    assert await pair.prepared() == [FOREIGN]
    assert (await run("recover", *dsns(pair), "--grace", "0s")).out == "nothing to resolve\n"


async def test_a_manifest_instead_of_dsns(pair: Bench, tmp_path: Path) -> None:
    one = await lost(pair)
    manifest = write_manifest(tmp_path / "shop.yaml", [Place(server.port, pair.database) for server in pair.servers])
    assert (await run("recover", "-f", str(manifest), "--grace", "0s")).code == 0
    assert await one.left() == []


async def test_what_is_younger_than_the_grace_period_is_left_alone(pair: Bench) -> None:
    one = await lost(pair)
    ended = await run("recover", *dsns(pair), "--grace", "1h")
    assert ended.code == 1
    assert "live: younger than the grace period" in ended.out
    assert await one.left() == [0, 1]


async def test_observe_changes_nothing_and_is_a_finding(pair: Bench) -> None:
    one = await lost(pair, decided=True)
    ended = await run("recover", *dsns(pair), "--grace", "0s", "--observe")
    assert await one.left() == [1]
    assert one.gid(1) in ended.out
    assert "nothing to resolve" not in ended.out
    assert ended.code == 1


async def test_one_pass_waits_for_its_fence(pair: Bench) -> None:
    """A coordinator's session that has written the record and hangs: ended after the grace period, by the same command."""
    one = await lost(pair)
    await pair.servers[0].psql(f"ROLLBACK PREPARED '{one.gid(0)}'", pair.database)
    frozen = await asyncpg.connect(pair.servers[0].dsn(pair.database, "app", PASSWORD), timeout=10)
    await frozen.execute("BEGIN")
    await frozen.execute(
        "INSERT INTO pgshepherd.commit_record (txn, shard, decision_shard, epoch, participants) "
        f"VALUES ('{one.txn}', 0, 0, 1, '{{0,1}}')"
    )
    old = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database() AND prepared < clock_timestamp() - interval '1.5 s'"
    async with asyncio.timeout(30):
        while await pair.servers[1].psql(old, pair.database) == "0":
            await asyncio.sleep(0.1)
    ended = await run("recover", *dsns(pair), "--grace", "1s")
    frozen.terminate()
    assert ended.code == 0, ended.said
    assert "still at work" in ended.out
    assert await pair.on_shards("SELECT outcome FROM pgshepherd.commit_record") == ["abort", ""]
    assert await one.left() == []


async def test_what_could_not_be_finished_is_a_finding(pair: Bench) -> None:
    one = await lost(pair, decided=True)
    await pair.servers[1].psql("REVOKE app FROM recovery")
    try:
        ended = await run("recover", *dsns(pair), "--grace", "0s")
        assert 'GRANT "app" TO' in ended.said
        assert "nothing to resolve" not in ended.out
        assert ended.code == 1
    finally:
        await pair.servers[1].psql("GRANT app TO recovery WITH SET TRUE, INHERIT FALSE")
    assert (await run("recover", *dsns(pair), "--grace", "0s")).code == 0
    assert await one.exists() == [True, True]


async def test_list(pair: Bench) -> None:
    one, two = await lost(pair), await lost(pair, decided=True)
    await foreign(pair)
    ended = await run("transactions", "list", *dsns(pair), "--grace", "0s", "-o", "json")
    assert ended.code == 0
    found = {each["gid"]: each for each in json.loads(ended.out)}
    assert {gid: each["class"] for gid, each in found.items()} == {
        one.gid(0): "aborted",
        one.gid(1): "aborted",
        two.gid(1): "committed",
        FOREIGN: "foreign",
    }
    assert found[one.gid(1)]["owner"] == "app"
    assert found[one.gid(1)]["evidence"]
    table = (await run("transactions", "list", *dsns(pair), "--grace", "1h")).out
    assert "live" in table
    assert "foreign" in table
    assert (await one.left(), await two.left()) == ([0, 1], [1])


async def test_explain(pair: Bench) -> None:
    one, two = await lost(pair), await lost(pair, decided=True)
    await foreign(pair)
    undecided = await run("transactions", "explain", one.txn, *dsns(pair))
    assert undecided.code == 0
    assert "class aborted" in undecided.out
    assert "recovery would roll it back on every shard" in undecided.out
    assert undecided.out.count("evidence: shard") >= 2
    decided = await run("transactions", "explain", two.gid(1), *dsns(pair))
    assert "class committed" in decided.out
    assert "recovery would commit it on every shard" in decided.out
    others = await run("transactions", "explain", FOREIGN, *dsns(pair))
    assert "recovery would never touch it" in others.out
    as_json = json.loads((await run("transactions", "explain", one.txn, *dsns(pair), "-o", "json")).out)
    assert {each["shard"] for each in as_json} == {0, 1}
    nobody = await run("transactions", "explain", "0" * 32, *dsns(pair))
    assert (nobody.code, nobody.out) == (1, "")
    assert "no prepared transaction" in nobody.err
    assert (await one.left(), await two.left()) == ([0, 1], [1])


VERBS = [("recover", "--grace", "0s"), ("transactions", "list"), ("transactions", "list", "-o", "json")]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
async def test_an_unreachable_shard_is_a_finding_and_never_clean(pair: Bench, verb: tuple[str, ...]) -> None:
    ended = await run(*verb, *dsns(pair, ports=[pair.servers[0].port, free_port()]))
    assert ended.code == 1
    assert "is PostgreSQL running, on this port?" in ended.err
    assert ended.out in (
        "nothing to resolve on the shards that answered\n",
        "no prepared transactions on the shards that answered\n",
        "[]\n",
    )


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
async def test_a_forgotten_shard_is_a_finding_and_never_clean(pair: Bench, verb: tuple[str, ...]) -> None:
    ended = await run(*verb, *dsns(pair)[:2])
    assert ended.code == 1
    assert f"not looked at: members 1 of cluster {pair.cluster_id}: name every shard" in ended.err


async def test_without_the_decision_shard_nothing_is_done(pair: Bench) -> None:
    one = await lost(pair)
    ended = await run("recover", *dsns(pair, ports=[free_port(), pair.servers[1].port]), "--grace", "0s")
    assert ended.code == 1
    assert f"{one.gid(1)} on shard 1: unreachable" in ended.out
    explained = await run("transactions", "explain", one.txn, *dsns(pair)[2:])
    assert explained.code == 1
    assert "recovery would do nothing yet" in explained.out
    assert "a person can decide it: pgshepherd transactions commit|rollback" in explained.out
    assert await one.left() == [0, 1]


async def test_no_shard_answers(pair: Bench) -> None:
    for verb in VERBS:
        ended = await run(*verb, *dsns(pair, ports=[free_port(), free_port()]))
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.count("is PostgreSQL running, on this port?") == 2


async def test_a_host_that_no_dns_could_know() -> None:
    ended = await run("recover", "--dsn", f"postgresql://recovery:{PASSWORD}@pg..example/shop")
    assert (ended.code, ended.out) == (1, "")
    assert "the host name 'pg..example' is not known" in ended.err


async def test_shards_of_two_clusters_and_one_shard_twice(pair: Bench, servers: Servers) -> None:
    async with bench(servers, 2) as other:
        ended = await run("recover", *dsns(pair)[:2], *dsns(other)[2:])
        assert ended.code == 1
        assert "these shards belong to different clusters" in ended.err
    ended = await run("recover", *dsns(pair)[:2], *dsns(pair)[:2])
    assert ended.code == 1
    assert "the same shard was given twice" in ended.err


HIDDEN = "hunter2"
BAD_DSNS = [
    f"postgresql://recovery:{HIDDEN}@127.0.0.1:port/shop",
    f"postgresql://recovery:{HIDDEN}@127.0.0.1:99999/shop",
    f"postgresql://recovery:{HIDDEN}@127.0.0.1",
    f"postgresql://recovery:{HIDDEN}/x@127.0.0.1/shop",
    f"postgresql://recovery:{HIDDEN}#x@127.0.0.1/shop",
    f"postgresql://recovery:{HIDDEN}\uff0f@127.0.0.1/shop",
    f"postgresql://recovery:{HIDDEN}@[127.0.0.1/shop",
    f"postgresql://recovery:{HIDDEN}@127.0.0.1/shop?sslmode=require",
    f"mysql://recovery:{HIDDEN}@127.0.0.1/shop",
    f"host=127.0.0.1 password={HIDDEN}",
    f"postgresql://:{HIDDEN}@127.0.0.1/shop",
]


@pytest.mark.parametrize("dsn", BAD_DSNS)
async def test_a_bad_dsn_is_named_by_its_number_only(dsn: str) -> None:
    ended = await pgshepherd("recover", "--dsn", dsn)
    assert ended.code == 2
    assert "--dsn number 1" in ended.err
    assert HIDDEN not in ended.said


@pytest.mark.parametrize(
    "arguments",
    [
        ("recover",),
        ("recover", "-f", "shop.yaml", "--dsn", "postgresql://u:p@h/d"),
        ("recover", "--dsn", "postgresql://u:p@h/d", "--grace", "soon"),
        ("recover", "--dsn", "postgresql://u:p@h/d", "--interval", "often"),
        ("transactions", "list", "--dsn", "postgresql://u:p@h/d", "--grace", "soon"),
        ("transactions", "list"),
        ("transactions", "explain"),
    ],
    ids=" ".join,
)
async def test_usage(arguments: tuple[str, ...]) -> None:
    ended = await pgshepherd(*arguments)
    assert (ended.code, ended.out) == (2, "")


async def test_the_loop_finds_a_shard_that_comes_back(pair: Bench) -> None:
    one = await lost(pair, decided=True)
    pair.links[1].refusing = True
    ports = [pair.servers[0].port, pair.links[1].port]
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "recover", *dsns(pair, ports=ports), "--grace", "0s", "--interval", "0.2s",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, preexec_fn=die_with_parent,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT):
            assert process.stdout is not None
            while b"nothing to resolve on the shards that answered" not in await process.stdout.readline():
                assert process.returncode is None
            pair.links[1].heal()
            while await one.left():
                await process.stdout.readline()
        assert process.returncode is None
    finally:
        process.kill()
        await process.communicate()
    assert await one.exists() == [True, True]
