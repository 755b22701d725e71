"""From the first byte to ReadyForQuery: encryption requests, versions, options, logins, what the server says of itself."""

from __future__ import annotations

import struct

import pytest

from bench import PASSWORD, Bench
from programs import metric, psql, until
from raw_client import RawClient, startup

SSL, GSS = struct.pack("!II", 8, 80877103), struct.pack("!II", 8, 80877104)
WHO = {"user": "app", "database": "shop"}


@pytest.mark.parametrize("requests", [(SSL,), (GSS,), (GSS, SSL), (SSL, GSS)])
async def test_encryption_is_declined(market: Bench, requests: tuple[bytes, ...]) -> None:
    client = await RawClient.connect(market.listen.port)
    for request in requests:
        client.send(request)
        assert await client.reader.readexactly(1) == b"N"
    client.send(startup(WHO))
    assert (await client.authenticate("app", PASSWORD)).status == "I"
    await client.close()


async def test_requests_without_end_are_cut_off(market: Bench) -> None:
    client = await RawClient.connect(market.listen.port)
    client.send(SSL * 9)
    assert await client.reader.read() == b"NNN"


@pytest.mark.parametrize(
    ("version", "options"), [((3, 0), {}), ((3, 2), {}), ((3, 0), {"_pq_.one": "1"}), ((3, 2), {"_pq_.x": ""})]
)
async def test_versions_and_options_are_negotiated(market: Bench, version: tuple[int, int], options: dict[str, str]) -> None:
    client = await RawClient.connect(market.listen.port)
    client.send(startup(WHO | options, version[0] << 16 | version[1]))
    answer = await client.authenticate("app", PASSWORD)
    assert answer.status == "I"
    negotiation = [message.body for message in answer.messages if message.kind == "v"]
    expected = struct.pack("!II", 196608, len(options)) + b"".join(name.encode() + b"\0" for name in options)
    assert negotiation == ([expected] if options or version != (3, 0) else [])
    assert (await client.query("SELECT 1")).rows == [("1",)]
    await client.close()


async def test_libpq_asks_for_the_latest_version(market: Bench) -> None:
    done = await psql(market, r"\c 'dbname=shop max_protocol_version=latest'", "SELECT 42")
    assert (done.code, done.out.split()[-1]) == (0, "42"), done.err


async def test_another_major_version(market: Bench) -> None:
    client = await RawClient.connect(market.listen.port)
    client.send(startup(WHO, 2 << 16))
    (error,) = await client.ended()
    assert error.fields["S"] == "FATAL"
    assert "protocol 2.0" in error.fields["M"]


async def _refused(market: Bench, user: str, password: str, database: str = "shop") -> dict[str, str]:
    client = await RawClient.connect(market.listen.port)
    client.send(startup({"user": user, "database": database}))
    answer = await client.authenticate(user, password)
    assert await client.ended() == []
    return answer.error


async def test_a_wrong_password_and_an_unknown_user_look_the_same(market: Bench) -> None:
    refused = await metric(market, "pgshepherd_proxy_logins_total")
    wrong, unknown = await _refused(market, "app", "wrong"), await _refused(market, "nobody", PASSWORD)
    assert wrong["C"] == unknown["C"] == "28P01"
    assert wrong["M"].replace('"app"', "") == unknown["M"].replace('"nobody"', "")
    assert wrong.keys() == unknown.keys()
    assert wrong["S"] == "FATAL"
    assert await metric(market, "pgshepherd_proxy_logins_total") == refused + 2


async def test_an_unknown_user_has_one_salt_for_ever(market: Bench) -> None:
    """As a real user has: or it would tell who exists."""
    salts = set()
    for _ in range(3):
        client = await RawClient.connect(market.listen.port)
        client.send(startup({"user": "nobody", "database": "shop"}))
        await client.message()
        first = b"n,,n=,r=abc"
        client.send(
            b"p" + struct.pack("!I", 4 + 14 + 4 + len(first)) + b"SCRAM-SHA-256\0" + struct.pack("!I", len(first)) + first
        )
        salts.add((await client.message()).body.split(b",s=")[1])
        client.vanish()
    assert len(salts) == 1


async def test_databases(market: Bench) -> None:
    assert (await _refused(market, "app", PASSWORD, "other"))["C"] == "3D000"
    assert (await _refused(market, "app", "wrong", "other"))["C"] == "28P01", "who is not known learns nothing of databases"
    client = await RawClient.connect(market.listen.port)
    client.send(startup({"user": "app"}))
    assert (await client.authenticate("app", PASSWORD)).error["M"] == 'database "app" does not exist'
    client = await RawClient.connect(market.listen.port)
    client.send(startup({"database": "shop"}))
    assert (await client.ended())[0].fields["C"] == "28000"


@pytest.mark.parametrize(
    ("name", "value", "sqlstate"),
    [
        ("client_encoding", "UTF8", ""),
        ("client_encoding", "'utf-8'", ""),
        ("client_encoding", "LATIN1", "0A000"),
        ("replication", "false", ""),
        ("replication", "database", "0A000"),
        ("options", "", ""),
        ("options", "-c search_path=x", "0A000"),
        ("search_path", "x", "0A000"),
        ("DateStyle", "German", ""),
        ("TimeZone", "UTC", ""),
        ("statement_timeout", "nonsense", "22023"),
        ("role", "postgres", "0A000"),
    ],
)
async def test_settings_at_startup(market: Bench, name: str, value: str, sqlstate: str) -> None:
    client = await RawClient.connect(market.listen.port)
    client.send(startup({**WHO, name: value}))
    answer = await client.authenticate("app", PASSWORD)
    assert (answer.sqlstate, answer.error.get("S", "FATAL")) == (sqlstate, "FATAL")
    if not sqlstate and name in ("DateStyle", "TimeZone"):
        assert (await client.query(f"SHOW {name}")).rows[0][0] == {"German": "German, DMY"}.get(value, value)
        assert (await client.query("SELECT DATE '2026-01-31'")).rows == [("31.01.2026" if name == "DateStyle" else "2026-01-31",)]
    client.vanish()


async def test_what_the_server_says_of_itself(market: Bench) -> None:
    client = await RawClient.login(market.listen.port, PASSWORD, application_name="mine")
    plain = await RawClient.login(market.servers[0].port, PASSWORD, database=market.database)
    for name in (
        "server_version",
        "integer_datetimes",
        "standard_conforming_strings",
        "server_encoding",
        "TimeZone",
        "DateStyle",
    ):
        assert client.parameters[name] == plain.parameters[name]
    assert client.parameters["application_name"] == "mine"
    assert client.parameters["is_superuser"] == "off"
    assert (await client.query("SHOW application_name")).rows == [("mine",)]
    await client.query("SET application_name = 'yours'")
    assert (await client.query("SHOW application_name")).rows == [("yours",)]
    await client.close()
    await plain.close()


async def test_a_shard_sees_who_it_is(market: Bench) -> None:
    client = await RawClient.login(market.listen.port, PASSWORD, application_name="my-service")
    names = [name for shard in await market.on_shards("SELECT application_name FROM pg_stat_activity") for name in shard.split()]
    assert f"pgshepherd/{market.cluster_id[:8]}/test-proxy-0/my-service" in names
    await client.close()


async def test_a_parameter_that_a_statement_changes_is_reported(market: Bench) -> None:
    client = await RawClient.login(market.listen.port, PASSWORD)
    answer = await client.query("SET TimeZone = 'Europe/Berlin'")
    assert answer.kinds == "SCZ"
    assert answer.messages[0].body == b"TimeZone\0Europe/Berlin\0"
    answer = await client.query("RESET ALL")
    assert (answer.tags, answer.status) == (["RESET"], "I")
    await client.close()


async def test_servers_that_ask_for_other_kinds_of_passwords(pair: Bench) -> None:
    """SCRAM is what servers ask for elsewhere in these tests; md5 and clear text are older."""
    server = pair.servers[0]
    hba = server.data / "pg_hba.conf"
    before = hba.read_text()
    try:
        for method in ("password", "trust", "scram-sha-256"):
            hba.write_text(f"host all app 127.0.0.1/32 {method}\n{before}")
            await server.psql("SELECT pg_reload_conf()")
            await pair.start_proxy()
            client = await pair.client()
            assert await client.fetchval("SELECT 1") == 1
            await client.close()
            await pair.kill_proxy()
        hba.write_text(f"host all app 127.0.0.1/32 reject\n{before}")
        await server.psql("SELECT pg_reload_conf()")
        await pair.start_proxy()
        for _ in range(2):
            client = await pair.client()
            assert await client.fetchval("SELECT 1") == 1, "the other shard answers, so that one that is down locks nobody out"
            await client.close()
    finally:
        hba.write_text(before)
        await server.psql("SELECT pg_reload_conf()")

    async def healed() -> bool:
        return bool(await server.psql("SELECT 1"))

    await until(healed)
