"""psql as it is shipped: its backslash commands, scripts, and how it shows errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench import Bench
from programs import program, psql, total

Fresh = Callable[[int], list[int]]


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (r"\d", "public|accounts|table"),
        (r"\dt", "public|rates|table"),
        (r"\d accounts", "customer_id|bigint||not null"),
        (r"\d+ words", "word|character varying"),
        (r"\di", "accounts_pkey"),
        (r"\dn", "public|"),
        (r"\du", "app|"),
        (r"\df", ""),
        (r"\dT", ""),
        (r"\l", "template1|"),
        (r"\conninfo", "app"),
        (r"\encoding", "UTF8"),
        (r"\z accounts", "public|accounts|table"),
        (r"\sf lower", ""),
        ("SELECT current_database() <> ''", "t"),
        ("TABLE rates", ""),
    ],
)
async def test_commands(market: Bench, command: str, shown: str) -> None:
    done = await psql(market, command)
    if command.startswith(r"\sf"):
        assert "could not" not in done.err or done.code
        return
    assert (done.code, done.err) == (0, "")
    assert shown in done.out


async def test_several_statements_in_one_text_are_one_transaction(market: Bench, fresh: Fresh) -> None:
    here, there, other = fresh(3)
    before = await total(market)
    done = await psql(
        market,
        f"INSERT INTO accounts VALUES ({here}, 100); INSERT INTO accounts VALUES ({there}, 50); "
        f"SELECT balance FROM accounts WHERE customer_id = {there}",
    )
    assert (done.code, done.out.split()) == (0, ["50"])
    assert await total(market) == before + 150
    done = await psql(market, f"INSERT INTO accounts VALUES ({other}, 7); INSERT INTO accounts VALUES ({there}, 7)")
    assert done.code == 1
    assert "duplicate key value violates unique constraint" in done.err
    assert await total(market) == before + 150, "the first statement went with the second"


async def test_a_script_with_transactions(market: Bench, fresh: Fresh) -> None:
    here, there = fresh(2)
    before = await total(market)
    script = market.directory / "script.sql"
    script.write_text(
        f"BEGIN;\nINSERT INTO accounts VALUES ({here}, 1);\nSAVEPOINT a;\nINSERT INTO accounts VALUES ({here}, 2);\n"
        f"ROLLBACK TO a;\nINSERT INTO accounts VALUES ({there}, 3);\nCOMMIT;\n"
        f"BEGIN;\nUPDATE accounts SET balance = 0 WHERE customer_id = {here};\nROLLBACK;\n"
    )
    done = await program(market, "psql", "-X", "-q", "-f", str(script))
    assert done.code == 0
    assert done.err.count("ERROR") == 1
    assert await total(market) == before + 4
    assert (await psql(market, f"SELECT * FROM accounts WHERE customer_id IN ({here}, {there})")).out.split() != []


@pytest.mark.parametrize("command", [r"\copy accounts FROM 'nothing.csv'", r"\copy accounts TO STDOUT", "COPY rates TO STDOUT"])
async def test_copy_is_refused_clearly(market: Bench, command: str) -> None:
    (market.directory / "nothing.csv").write_text("1,1\n")
    done = await psql(market, command)
    assert done.code == 1
    assert "pgshepherd does not support" in done.err
    assert "HINT:  load and unload each shard by itself" in done.err


async def test_errors_are_shown_as_postgres_shows_them(market: Bench) -> None:
    done = await psql(market, r"\set VERBOSITY verbose", "SELECT 1,\n       frob FROM rates")
    assert done.code == 1
    assert 'ERROR:  42703: column "frob" does not exist' in done.err
    assert "LINE 2:        frob FROM rates\n               ^" in done.err
    done = await psql(market, "SELECT frob(")
    assert "ERROR:  syntax error at end of input\nLINE 1: SELECT frob(\n                    ^" in done.err
    done = await psql(market, "SELECT * FROM nowhere")
    assert 'relation "nowhere" does not exist' in done.err


async def test_a_wrong_password(market: Bench) -> None:
    done = await program(
        market, "psql", "-X", "-d", f"postgresql://app:wrong@127.0.0.1:{market.listen.port}/shop", "-c", "SELECT 1"
    )
    assert done.code == 2
    assert 'password authentication failed for user "app"' in done.err
    assert "wrong" not in market.log()
