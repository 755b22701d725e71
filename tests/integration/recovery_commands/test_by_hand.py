"""`transactions commit`, `rollback` and `acknowledge` as a person runs them."""

from __future__ import annotations

from bench import PASSWORD, Bench
from commands import Ended, pgshepherd
from orphans import Orphan, orphan
from shardoperator.standalone.postgres.server import free_port

REASON = ("--reason", "INC-7: the ledger says so")
FORCE = "--force-against-evidence"


def dsns(of: Bench, *ports: int) -> list[str]:
    given = ports or [server.port for server in of.servers]
    return [part for port in given for part in ("--dsn", f"postgresql://recovery:{PASSWORD}@127.0.0.1:{port}/{of.database}")]


async def run(verb: str, name: str, pair: Bench, *options: str, ports: tuple[int, ...] = ()) -> Ended:
    ended = await pgshepherd("transactions", verb, name, *options, *dsns(pair, *ports))
    assert PASSWORD not in ended.said
    return ended


async def lost(pair: Bench, *, decided: bool = False) -> Orphan:
    return await orphan(pair.servers, pair.database, pair.cluster_id, decided=decided)


async def audit(pair: Bench, one: Orphan) -> list[str]:
    return await pair.on_shards(f"SELECT action, reason FROM pgshepherd.audit WHERE txn = '{one.txn}' ORDER BY at")


async def settled(pair: Bench) -> None:
    """Recovery finds nothing that it would do otherwise."""
    report = await pair.recovery().run_pass()
    assert (report.transactions, report.actions, report.failures) == ((), (), ())


async def test_rollback_of_what_nobody_decided(pair: Bench) -> None:
    one = await lost(pair)
    ended = await run("rollback", one.txn, pair, *REASON)
    assert ended.code == 0, ended.said
    assert ended.out.count("evidence: ") == 2
    assert await one.exists() == [False, False]
    assert await audit(pair, one) == ["rollback|by hand: INC-7: the ledger says so"] * 2
    await settled(pair)


async def test_commit_of_what_was_decided(pair: Bench) -> None:
    one = await lost(pair, decided=True)
    assert (await run("commit", one.gid(1), pair, *REASON)).code == 0
    assert await one.exists() == [True, True]
    await settled(pair)


async def test_against_the_evidence_only_by_force(pair: Bench) -> None:
    undecided, decided = await lost(pair), await lost(pair, decided=True)
    for verb, one, words in (("commit", undecided, "it is aborted"), ("rollback", decided, "it is committed")):
        ended = await run(verb, one.txn, pair, *REASON)
        assert ended.code == 1
        assert words in ended.err
        assert FORCE in ended.err
        assert await audit(pair, one) == ["", ""], "nothing was done"
    assert (await undecided.left(), await decided.left()) == ([0, 1], [1])
    assert (await run("commit", undecided.txn, pair, *REASON, FORCE)).code == 0
    assert await undecided.exists() == [True, True]
    assert all("by force: the evidence says that it is aborted" in row for row in await audit(pair, undecided))
    assert (await run("rollback", decided.txn, pair, *REASON, FORCE)).code == 0
    assert await decided.exists() == [True, False], "split, as it was told"
    await settled(pair)


async def test_a_forged_record_is_decided_by_a_person(pair: Bench) -> None:
    one = await lost(pair)
    columns = "INSERT INTO pgshepherd.commit_record (txn, shard, decision_shard, epoch, participants)"
    await pair.servers[0].psql(f"ROLLBACK PREPARED '{one.gid(0)}'", pair.database)
    await pair.servers[0].psql(f"{columns} VALUES ('{one.txn}', 0, 0, 1, '{{}}')", pair.database)
    assert (await pair.recovery().run_pass()).actions == ()
    assert (await run("rollback", one.txn, pair, *REASON)).code == 0
    assert await one.exists() == [False, False]
    await settled(pair)


async def test_a_commit_without_the_decision_shards_part_is_written_down_there(pair: Bench) -> None:
    one = await lost(pair)
    await pair.servers[0].psql(f"ROLLBACK PREPARED '{one.gid(0)}'", pair.database)
    ended = await run("commit", one.txn, pair, *REASON, FORCE)
    assert (ended.code, await one.exists()) == (0, [False, True]), ended.said
    record = f"SELECT outcome, who FROM pgshepherd.commit_record WHERE txn = '{one.txn}'"
    assert await pair.on_shards(record) == ["commit|app", "commit|app"]


async def test_a_shard_that_is_away_may_know_better(pair: Bench) -> None:
    one = await lost(pair)
    ports = (free_port(), pair.servers[1].port)
    ended = await run("rollback", one.txn, pair, *REASON, ports=ports)
    assert ended.code == 1
    assert "what these would show is not known" in ended.err
    assert await one.left() == [0, 1]
    assert (await run("rollback", one.txn, pair, *REASON, FORCE, ports=ports)).code == 0
    assert await one.left() == [0]
    await pair.recovery().run_pass()
    assert await one.exists() == [False, False]


async def test_what_is_not_ours_and_what_is_not_there(pair: Bench) -> None:
    await pair.servers[0].psql("BEGIN; CREATE TABLE of_others (); PREPARE TRANSACTION 'of others'", pair.database)
    ended = await run("rollback", "of others", pair, *REASON, FORCE)
    assert ended.code == 1
    assert "only its own transaction manager" in ended.err
    assert "no prepared transaction" in (await run("commit", "0" * 32, pair, *REASON)).err
    assert await pair.servers[0].psql("SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'of others'") == "1"
    await pair.servers[0].psql("ROLLBACK PREPARED 'of others'", pair.database)


async def test_a_reason_is_asked_for(pair: Bench) -> None:
    for verb in ("commit", "rollback", "acknowledge"):
        assert (await run(verb, "0" * 32, pair)).code == 2
        assert (await run(verb, "0" * 32, pair, "--reason", " ")).code == 2


async def test_acknowledge_ends_the_alert_of_a_loss(pair: Bench) -> None:
    txn = "ab" * 16
    await pair.on_shards(
        "INSERT INTO pgshepherd.audit (cluster, txn, shard, action, reason) "
        f"SELECT cluster, '{txn}', number, 'loss', 'shard 1 lost its part' FROM pgshepherd.shard"
    )
    controller = pair.recovery()
    await controller.clean()
    assert len((await controller.run_pass()).losses) == 1
    ended = await run("acknowledge", txn, pair, *REASON)
    assert (ended.code, ended.out) == (0, "acknowledged on shards 0, 1\n"), ended.said
    again = pair.recovery()
    await again.clean()
    assert (await again.run_pass()).losses == ()
    assert (await run("acknowledge", txn, pair, *REASON)).code == 1
    assert (await run("acknowledge", "no txn", pair, *REASON)).code == 2
