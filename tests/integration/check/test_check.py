"""`pgshepherd check` as a user runs it: each trouble has a clear message with its remedy, exit code 1, and shows no secret."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench import PASSWORD, Bench, Servers, bench
from commands import Ended, pgshepherd
from manifests import Place, write_manifest
from replication import standby_of
from shardoperator.standalone.postgres.server import PostgresServer, free_port

WRONG_PASSWORD = "wr0ng-password-of-the-tests"
_numbers = itertools.count(1)


async def check(manifest: Path, *arguments: str) -> Ended:
    """Whatever it says, no secret is in it."""
    ended = await pgshepherd("check", "-f", str(manifest), *arguments)
    assert PASSWORD not in ended.said
    assert WRONG_PASSWORD not in ended.said
    return ended


async def finding(manifest: Path, kind: str, reason: str, *words: str) -> Ended:
    """It finds exactly this."""
    ended = await check(manifest)
    assert f"FIND {kind}=" in ended.out, ended.said
    assert f" {reason}\n" in ended.out, ended.said
    for word in words:
        assert word in ended.out, ended.said
    assert ended.code == 1
    return ended


def places(of: Bench) -> list[Place]:
    return [Place(server.port, of.database) for server in of.servers]


async def empty_database(server: PostgresServer) -> Place:
    """Without the schema pgshepherd."""
    database = f"empty{next(_numbers)}"
    await server.psql(f"CREATE DATABASE {database}")
    return Place(server.port, database)


async def test_all_is_well(pair: Bench, tmp_path: Path) -> None:
    ended = await check(write_manifest(tmp_path / "shop.yaml", places(pair)))
    assert ended.code == 0
    assert "ok   ShardsReachable=True Reachable" in ended.out
    assert "ok   TwoPhaseReady=True Sufficient" in ended.out


async def test_json(pair: Bench, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "shop.yaml", [places(pair)[0], Place(free_port(), "shop")])
    ended = await check(manifest, "-o", "json")
    found = {one["type"]: (one["status"], one["reason"]) for one in json.loads(ended.out)}
    assert found == {"ShardsReachable": ("False", "ConnectionRefused"), "TwoPhaseReady": ("Unknown", "Unknown")}
    assert ended.code == 1


UNREACHABLE: list[tuple[str, Callable[[Place], Place], list[str]]] = [
    ("ConnectionRefused", lambda good: Place(free_port(), good.database), ["is PostgreSQL running, on this port?"]),
    ("ConnectionRefused", lambda good: Place(good.port, "nowhere"), ['"nowhere" does not exist', "check spec.shards[].database"]),
]


@pytest.mark.parametrize(("reason", "change", "words"), UNREACHABLE)
async def test_a_wrong_address(
    pair: Bench, tmp_path: Path, reason: str, change: Callable[[Place], Place], words: list[str]
) -> None:
    good, other = places(pair)
    manifest = write_manifest(tmp_path / "shop.yaml", [good, change(other)])
    await finding(manifest, "ShardsReachable", reason, "shop-1", *words)


async def test_a_host_name_that_nobody_knows(pair: Bench, tmp_path: Path) -> None:
    good, other = places(pair)
    ended = await check(write_manifest(tmp_path / "shop.yaml", [good, Place(other.port, other.database, "no-such-host.invalid")]))
    assert "NameNotResolved" in ended.out or "Timeout" in ended.out  # a resolver without a network takes its time
    assert ended.code == 1


@pytest.mark.parametrize("login", [("recovery", WRONG_PASSWORD), ("nobody_there", WRONG_PASSWORD), ("recovery", "")])
async def test_a_wrong_login(pair: Bench, tmp_path: Path, login: tuple[str, str]) -> None:
    manifest = write_manifest(tmp_path / "shop.yaml", places(pair), logins={"recovery": login})
    await finding(manifest, "ShardsReachable", "AuthenticationFailed", f"refuses the login '{login[0]}'", "check the Secret")


async def test_a_missing_secret(pair: Bench, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "shop.yaml", places(pair), shard={"credentialsSecretRef": {"name": "nowhere"}})
    await finding(manifest, "ShardsReachable", "SecretNotFound", "Secret nowhere with the keys username and password")


@asynccontextmanager
async def listener(banner: bytes, *, closes: bool) -> AsyncIterator[int]:
    """Accepts connections, says `banner`, and nothing more, for ever, or closes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(banner)
            while await reader.read(1024) and not closes:
                pass
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize(
    ("banner", "closes", "reason", "words"),
    [
        (b"", False, "Timeout", "did not answer within"),
        (b"", True, "ConnectionRefused", "closed the connection during the login: is that PostgreSQL"),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", True, "ConnectionRefused", "is that PostgreSQL"),
        (b"R\0\0\0\4", False, "ConnectionRefused", "what answers there is not PostgreSQL"),
    ],
    ids=["silent", "closes", "http", "junk"],
)
async def test_something_else_listens_there(
    pair: Bench, tmp_path: Path, banner: bytes, closes: bool, reason: str, words: str
) -> None:
    async with listener(banner, closes=closes) as port:
        manifest = write_manifest(tmp_path / "shop.yaml", [places(pair)[0], Place(port, pair.database)])
        await finding(manifest, "ShardsReachable", reason, "shop-1", words)


async def test_a_standby(pair: Bench, servers: Servers, tmp_path: Path) -> None:
    standby = await standby_of(pair.servers[1], servers.directory / f"standby-{next(_numbers)}")
    try:
        manifest = write_manifest(tmp_path / "shop.yaml", [places(pair)[0], Place(standby.port, pair.database)])
        await finding(manifest, "ShardsReachable", "ReadOnlyStandby", "shop-1", "point spec.shards[].host at the primary")
    finally:
        await standby.stop("immediate")


async def test_max_prepared_transactions(pair: Bench, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "shop.yaml", places(pair))
    server = pair.servers[1]
    had = server.settings["max_prepared_transactions"]
    try:
        await server.restart({"max_prepared_transactions": "0"})
        change = "ALTER SYSTEM SET max_prepared_transactions = 44, and restart PostgreSQL"
        await finding(manifest, "TwoPhaseReady", "Disabled", f"shop-1: max_prepared_transactions is 0: {change}")
        await server.restart({"max_prepared_transactions": "7"})
        await finding(manifest, "TwoPhaseReady", "TooLow", f"shop-1: max_prepared_transactions is 7, 44 are needed: {change}")
    finally:
        await server.restart({"max_prepared_transactions": had})
    assert (await check(manifest)).code == 0


async def test_the_same_database_twice(pair: Bench, tmp_path: Path) -> None:
    one = places(pair)[0]
    manifest = write_manifest(tmp_path / "shop.yaml", [one, Place(one.port, one.database, "localhost")])
    await finding(
        manifest, "ShardsReachable", "DuplicateShard", "shop-1 is the same database as shard shop-0", "each needs its own"
    )


async def test_a_shard_of_another_cluster(pair: Bench, servers: Servers, tmp_path: Path) -> None:
    async with bench(servers, 2) as other:
        mixed = [places(pair)[0], places(other)[1]]
        manifest = write_manifest(tmp_path / "shop.yaml", mixed)
        await finding(
            manifest, "ShardsReachable", "WrongShard", f"shop-1 belongs to cluster {other.cluster_id}", "set spec.clusterID"
        )
        manifest = write_manifest(tmp_path / "shop.yaml", mixed, clusterID=pair.cluster_id)
        ended = await finding(manifest, "ShardsReachable", "WrongShard", f"spec.clusterID says {pair.cluster_id}")
        assert "shop-0" not in ended.out


async def test_shards_in_the_wrong_order(pair: Bench, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "shop.yaml", list(reversed(places(pair))))
    await finding(
        manifest, "ShardsReachable", "WrongShard", "shop-0 is number 1 of its cluster, the spec says 0", "mend the spec"
    )


async def test_another_server_in_a_shards_place(pair: Bench, tmp_path: Path) -> None:
    await pair.servers[1].psql("UPDATE pgshepherd.shard SET system_identifier = 7", pair.database)
    manifest = write_manifest(tmp_path / "shop.yaml", places(pair))
    await finding(manifest, "ShardsReachable", "WrongShard", "shop-1 is another server than the one that was adopted")


async def test_without_two_phase_commit_nothing_more_is_asked_for(pair: Bench, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "shop.yaml", places(pair), twoPhaseCommit={"enabled": False})
    ended = await check(manifest)
    assert "TwoPhaseReady=False NotRequested" in ended.out
    assert ended.code == 0


REVOKED = [
    ("REVOKE INSERT ON pgshepherd.shard FROM recovery", 'GRANT INSERT ON pgshepherd.shard TO "recovery";'),
    ("REVOKE DELETE ON pgshepherd.commit_record FROM recovery", 'GRANT DELETE ON pgshepherd.commit_record TO "recovery";'),
    ("REVOKE ALL ON pgshepherd.audit FROM recovery", 'GRANT INSERT ON pgshepherd.audit TO "recovery";'),
    ("REVOKE USAGE ON SCHEMA pgshepherd FROM PUBLIC", "GRANT USAGE ON SCHEMA pgshepherd TO PUBLIC;"),
    ("REVOKE SELECT (epoch) ON pgshepherd.shard FROM PUBLIC", "GRANT SELECT (epoch) ON pgshepherd.shard TO PUBLIC;"),
    (
        "REVOKE INSERT (txn) ON pgshepherd.commit_record FROM PUBLIC",
        "GRANT INSERT (txn, shard, decision_shard, epoch, participants)",
    ),
]


@pytest.mark.parametrize(("revoke", "grant"), REVOKED)
async def test_a_missing_grant_is_named_and_what_sql_prints_mends_it(
    pair: Bench, tmp_path: Path, revoke: str, grant: str
) -> None:
    manifest = write_manifest(tmp_path / "shop.yaml", places(pair))
    await pair.servers[1].psql(revoke, pair.database)
    await finding(manifest, "TwoPhaseReady", "MissingPrivilege", "shop-1", f"a right is missing: {grant}")
    await run_printed_sql(pair.servers, places(pair), manifest)
    assert (await check(manifest)).code == 0


async def test_a_role_that_recovery_may_not_become(pair: Bench, tmp_path: Path) -> None:
    server = pair.servers[0]
    await server.psql(f"CREATE ROLE clerk LOGIN PASSWORD '{PASSWORD}'")
    try:
        users = [{"name": name, "passwordSecretRef": {"name": "app"}} for name in ("app", "clerk", "ghost")]
        manifest = write_manifest(tmp_path / "shop.yaml", places(pair), users=users)
        await finding(
            manifest, "TwoPhaseReady", "MissingPrivilege", 'GRANT "clerk" TO "recovery" WITH SET TRUE, INHERIT FALSE;',
            'CREATE ROLE "ghost" LOGIN PASSWORD',
        )  # fmt: skip
    finally:
        await server.psql("DROP ROLE clerk")


async def test_the_coordinators_own_login(pair: Bench, tmp_path: Path) -> None:
    for server in pair.servers:
        await server.psql(f"CREATE ROLE coordinator LOGIN PASSWORD '{PASSWORD}'")
    try:
        manifest = write_manifest(
            tmp_path / "shop.yaml", places(pair), logins={"coordinator": ("coordinator", PASSWORD)},
            shard={"coordinatorSecretRef": {"name": "coordinator"}},
        )  # fmt: skip
        await finding(manifest, "TwoPhaseReady", "MissingPrivilege", 'GRANT SELECT ON pgshepherd.commit_record TO "coordinator";')
        await run_printed_sql(pair.servers, places(pair), manifest)
        assert (await check(manifest)).code == 0
    finally:
        for server in pair.servers:
            await server.psql("DROP OWNED BY coordinator", pair.database)
            await server.psql("DROP ROLE coordinator")


async def run_printed_sql(servers: list[PostgresServer], where: list[Place], manifest: Path) -> str:
    """As a DBA would: each shard's part, in its database, as superuser."""
    ended = await check(manifest, "--sql")
    assert ended.code == 0
    parts = ended.out.split("-- shard ")[1:]
    assert len(parts) == len(servers)
    for server, place, part in zip(servers, where, parts, strict=True):
        assert f"in database {place.database} on 127.0.0.1:{place.port}" in part
        await server.psql(f"-- {part}", place.database)
    return ended.out


async def test_what_a_dba_must_run(servers: Servers, tmp_path: Path) -> None:
    two = servers.servers[:2]
    where = [await empty_database(server) for server in two]
    manifest = write_manifest(tmp_path / "shop.yaml", where)
    ended = await finding(
        manifest, "TwoPhaseReady", "NotInstalled", "shop-0", "the schema pgshepherd is not there", "check --sql"
    )
    assert "shop-1" in ended.out
    await run_printed_sql(two, where, manifest)
    ended = await check(manifest)
    assert "not adopted yet: shop-0, shop-1" in ended.out
    assert ended.code == 0
    await run_printed_sql(two, where, manifest)
    adopted = await pgshepherd("adopt", "-f", str(manifest))
    assert adopted.code == 0
    assert "ok   TwoPhaseReady=True Sufficient" in (await check(manifest)).out


async def test_sql_says_how_many_slots_are_needed(pair: Bench, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "shop.yaml", places(pair), proxy={"replicas": 4, "slotsPerShard": 50})
    ended = await check(manifest, "--sql")
    assert ended.out.count("ALTER SYSTEM SET max_prepared_transactions = 254;") == 2
    manifest = write_manifest(tmp_path / "shop.yaml", places(pair))
    assert "ALTER SYSTEM" not in (await check(manifest, "--sql")).out


@pytest.mark.parametrize(("statement", "words"), [
    ("ALTER TABLE pgshepherd.commit_record SET UNLOGGED", "commit_record is not an ordinary logged table"),
    ("ALTER TABLE pgshepherd.shard ENABLE ROW LEVEL SECURITY", "shard has row-level security"),
    ("ALTER TABLE pgshepherd.commit_record OWNER TO postgres", "commit_record is not owned by the NOLOGIN role pgshepherd"),
    ("DROP TABLE pgshepherd.audit", "the table pgshepherd.audit is missing"),
    ("CREATE PUBLICATION everything FOR ALL TABLES", "commit_record is published"),
    ("CREATE TRIGGER t BEFORE INSERT ON pgshepherd.commit_record FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
     "commit_record has triggers"),
])  # fmt: skip
async def test_tables_that_are_not_as_they_must_be(pair: Bench, tmp_path: Path, statement: str, words: str) -> None:
    await pair.servers[1].psql(statement, pair.database)
    manifest = write_manifest(tmp_path / "shop.yaml", places(pair))
    await finding(manifest, "TwoPhaseReady", "NotInstalled", "shop-1", words)
