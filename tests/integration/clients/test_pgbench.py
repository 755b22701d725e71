"""pgbench in its three modes, with transfers between shards: many clients at once, and the books."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from bench import Bench
from programs import metric, program, total

SCRIPT = r"""
\set source random(1, {keys}) + {first}
\set target random(1, {keys}) + {first}
BEGIN;
UPDATE accounts SET balance = balance - 1 WHERE customer_id = :source;
UPDATE accounts SET balance = balance + 1 WHERE customer_id = :target;
END;
SELECT balance FROM accounts WHERE customer_id = :source;
"""


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
async def test_transfers(market: Bench, mode: str, fresh: Callable[[int], list[int]]) -> None:
    first, keys = 10_000_000 + fresh(1)[0] * 100, 40
    client = await market.client()
    await client.executemany("INSERT INTO accounts VALUES ($1, 0)", [(first + n,) for n in range(1, keys + 1)])
    await client.close()
    before, commits = await total(market), await metric(market, "pgshepherd_proxy_two_phase_transactions_total")
    script = market.directory / "transfer.sql"
    script.write_text(SCRIPT.format(first=first, keys=keys))
    arguments = ("-n", "-M", mode, "-c", "4", "-t", "50", "--max-tries=50", "-f", str(script))
    done = await program(market, "pgbench", *arguments)
    assert done.code == 0, done.err
    assert re.search(r"transactions actually processed: 200/200", done.out), done.out
    assert "failed transactions: 0 " in done.out
    assert await total(market) == before
    assert await metric(market, "pgshepherd_proxy_two_phase_transactions_total") > commits
    assert await market.prepared() == []
