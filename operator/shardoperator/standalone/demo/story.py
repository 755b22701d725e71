"""The demo's story, chapter by chapter; exit code 0 only if every claim held."""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import signal

from rich.console import Console

from shardoperator.models.status import Status
from shardoperator.shards.application import Told, Transfer, execute, open_client, transfer, transfers
from shardoperator.standalone.demo.faults import commit_of, stopped_at
from shardoperator.standalone.demo.stage import Stage
from shardoperator.standalone.tables import conditions_table, transactions_table
from shardproxy.routing.hashing import shard_of

ACCOUNTS, OPENING = 40, 1000
"""Accounts, and what each holds at first."""
FOREIGN_GID = "xa_1_bWlycm9y_of_another_application"
PATIENCE = 60.0
"""Seconds until something that must happen has happened."""


class Story:
    """One run."""

    def __init__(self, stage: Stage, console: Console) -> None:
        self.stage = stage
        self.console = console
        self.failures = 0
        self.told: dict[str, Told] = {}
        self.status: Status | None = None
        self._changed = asyncio.Event()

    # --- telling

    def chapter(self, title: str) -> None:
        """A heading."""
        self.console.print()
        self.console.rule(f"[bold]{title}", align="left")

    def say(self, text: str) -> None:
        """A line of the story."""
        self.console.print(text, markup=False, soft_wrap=True)

    def claim(self, text: str, *, held: bool) -> None:
        """Something that must be true."""
        self.failures += not held
        self.console.print(f"[green]✔[/] {text}" if held else f"[bold red]✘ NOT TRUE: {text}", soft_wrap=True)

    async def until(self, what: str, kind: str, wanted: str) -> bool:
        """Wait for a condition; says whether it came."""
        with self.console.status(what):
            try:
                async with asyncio.timeout(PATIENCE):
                    while self.status is None or self.status.condition(kind).status != wanted:
                        self._changed.clear()
                        await self._changed.wait()
            except TimeoutError:
                return False
        return True

    def show(self) -> None:
        """The conditions as they are now."""
        if self.status is not None:
            self.console.print(
                conditions_table(self.status.conditions[:8], "kubectl describe shc shop  (here: the same, on one machine)")
            )

    # --- chapters

    async def servers_without_two_phase(self) -> None:
        """a: what is wrong is said exactly."""
        self.chapter("1  Two PostgreSQL servers, as they come: max_prepared_transactions = 0")
        with self.console.status("starting two PostgreSQL servers"):
            await self.stage.start_servers()
        self.stage.apply(self._on_status)
        self.say("$ pgshepherd run -f shop.yaml")
        await self.stage.controller.visit()
        self.show()
        assert self.status is not None
        condition = self.status.condition("TwoPhaseReady")
        self.claim(
            "TwoPhaseReady is False, for the reason Disabled", held=(condition.status, condition.reason) == ("False", "Disabled")
        )
        change = re.search(r"ALTER SYSTEM SET max_prepared_transactions = \d+", condition.message)
        self.claim("its message says what to change", held=change is not None)
        self.claim("no proxy was started", held=self.stage.platform.proxy_pid is None)
        with self.console.status("changing it, and restarting the servers"):
            for server in self.stage.servers:
                await server.psql(change[0] if change else "SELECT 1")
                await server.restart()
        self.say(f"{change[0] if change else '?'}; restarted both servers")
        self.stage.start_controller()
        came = await self.until("waiting for Ready", "Ready", "True")
        self.show()
        self.claim("the shards were adopted, TwoPhaseReady is True, the proxy came up, Ready is True", held=came)

    def _on_status(self, status: Status) -> None:
        self.status = status
        self._changed.set()

    async def money_moves(self) -> None:
        """b: an application as any other."""
        self.chapter("2  Money moves between shards, by a stock driver")
        dsn = self.stage.dsn
        self.say("$ psql  CREATE TABLE accounts ...; CREATE TABLE tokens ...   (on both shards, atomically)")
        await execute(dsn, "CREATE TABLE accounts (customer_id bigint PRIMARY KEY, balance bigint NOT NULL)")
        await execute(
            dsn, "CREATE TABLE tokens (customer_id bigint NOT NULL, token text NOT NULL, PRIMARY KEY (customer_id, token))"
        )
        client = await open_client(dsn)
        try:
            for account in range(1, ACCOUNTS + 1):
                await client.execute("INSERT INTO accounts (customer_id, balance) VALUES ($1, $2)", account, OPENING)
            tag = await client.execute("UPDATE accounts SET balance = balance + 0")
        finally:
            await client.close()
        self.claim(f"one statement changed the accounts of both shards: {tag}", held=tag == f"UPDATE {ACCOUNTS}")
        work = [self._transfer() for _ in range(200)]
        with self.console.status("200 transfers by 8 clients"):
            self.told.update(await transfers(dsn, work, parallel=8))
        committed = sum(told is Told.COMMITTED for told in self.told.values())
        deadlocks = len(self.told) - committed
        self.say(f"200 transfers: {committed} committed, {deadlocks} failed cleanly")
        self.claim("most transfers were committed", held=committed >= 100)
        gid = f"PREPARE TRANSACTION '{FOREIGN_GID}'"
        await self.stage.servers[0].psql(f"BEGIN; CREATE TABLE of_another_application (x int); {gid}", "shop")
        self.say(f"another application leaves a prepared transaction of its own: {FOREIGN_GID}")

    def _transfer(self) -> Transfer:
        source, target = random.sample(range(1, ACCOUNTS + 1), 2)
        return Transfer(source, target, random.randint(1, 20), secrets.token_hex(8))  # noqa: S311 - no secret

    async def lost_coordinator(self, title: str, *, decision: bool) -> None:
        """c: SIGKILL at an exact message, what stays behind, the alert, the recovery."""
        self.chapter(title)
        one = Transfer(1, self._other_shard(), 7, secrets.token_hex(8))
        client = await open_client(self.stage.dsn)
        task = asyncio.create_task(transfer(client, one))
        await stopped_at(self.stage.links, commit_of(decision=decision), PATIENCE)
        self.say("the link has stopped before the message; now: kill -9 of the proxy")
        await self.stage.platform.kill()
        for link in self.stage.links:
            link.cut()
            link.heal()
        self.told[one.token] = await task
        client.terminate()
        self.claim("the client was told nothing: its connection was lost", held=self.told[one.token] is Told.NOTHING)
        await self._watch_recovery(one, committed=not decision)

    def _other_shard(self) -> int:
        """An account that lives on another shard than account 1."""
        home = shard_of("bigint", 1, len(self.stage.servers))
        return next(account for account in range(2, ACCOUNTS) if shard_of("bigint", account, len(self.stage.servers)) != home)

    async def _watch_recovery(self, one: Transfer, *, committed: bool) -> None:
        blocked = [asyncio.create_task(self._billing(number, one)) for number in range(len(self.stage.servers))]
        try:
            alerted = await self.until("waiting until it is older than alertAfter (2 s)", "TransactionsResolved", "False")
            self._show_left_behind()
            self.claim("TransactionsResolved turned False: somebody is alerted", held=alerted)
            resolved = await self.until("waiting for recovery (gracePeriod 4 s)", "TransactionsResolved", "True")
            await self._show_recovery()
            await asyncio.gather(*blocked, return_exceptions=True)
        finally:
            for session in blocked:
                session.cancel()
            await asyncio.gather(*blocked, return_exceptions=True)
        found = await self._token_shards(one.token)
        self.claim("recovery resolved it, without the coordinator and without a person", held=resolved)
        if committed:
            self.claim("it was decided, so it is committed on both shards", held=found == 2)
        else:
            self.claim("nothing was decided, so it is rolled back on both shards", held=found == 0)
        self.told[one.token] = Told.COMMITTED if committed else Told.FAILED
        await self.until("the proxy is started again", "Ready", "True")

    async def _billing(self, number: int, one: Transfer) -> None:
        """An innocent session that needs one of the rows, directly on a shard."""
        sql = f"SET application_name = 'billing'; SELECT 1 FROM accounts WHERE customer_id IN ({one.source}, {one.target}) FOR UPDATE"
        await self.stage.servers[number].psql(sql, "shop")

    def _show_left_behind(self) -> None:
        assert self.status is not None
        report = self.status.report
        if report is not None:
            self.console.print(transactions_table(report.transactions, "what the dead coordinator left behind"))
            ours = report.ours()
            self.claim("it is found, with its age, and with the sessions that it blocks", held=any(part.blocks for part in ours))
        message = self.status.condition("TransactionsResolved").message
        self.console.print(f"[bold red]ALERT[/] TransactionsResolved=False: {message}", soft_wrap=True, highlight=False)

    async def _show_recovery(self) -> None:
        words = "action || ': ' || reason || E'\\n  ' || array_to_string(evidence, E'\\n  ')"
        rows = await self.stage.servers[0].psql(f"SELECT {words} FROM pgshepherd.audit ORDER BY at DESC LIMIT 1", "shop")
        self.say(f"recovery's own words, from its audit table on shard 0:\n  {rows}")

    async def _token_shards(self, token: str) -> int:
        counts = [
            await server.psql(f"SELECT count(*) FROM tokens WHERE token = '{token}'", "shop") for server in self.stage.servers
        ]
        return sum(int(count) > 0 for count in counts)

    async def books(self) -> None:
        """d: nothing was lost, nothing was made up, nothing stayed."""
        self.chapter("5  The books")
        total = 0
        for server in self.stage.servers:
            total += int(await server.psql("SELECT COALESCE(sum(balance), 0) FROM accounts", "shop"))
        self.claim(f"the total is what it was: {total}", held=total == ACCOUNTS * OPENING)
        tokens: dict[str, int] = {}
        for server in self.stage.servers:
            for token in (await server.psql("SELECT token FROM tokens", "shop")).split():
                tokens[token] = tokens.get(token, 0) + 1
        committed = {token for token, told in self.told.items() if told is Told.COMMITTED}
        self.claim(
            f"all {len(committed)} transfers that were committed are on both sides",
            held=all(tokens.get(one) == 2 for one in committed),
        )
        failed = {token for token, told in self.told.items() if told is Told.FAILED}
        self.claim(f"all {len(failed)} that failed are on neither", held=not any(one in tokens for one in failed))
        left = [await server.psql("SELECT gid FROM pg_prepared_xacts", "shop") for server in self.stage.servers]
        self.claim("nothing is left prepared but the other application's transaction, untouched", held=left == [FOREIGN_GID, ""])

    async def tell(self) -> int:
        """All chapters; how many claims did not hold."""
        await self.servers_without_two_phase()
        await self.money_moves()
        await self.lost_coordinator("3  kill -9 between PREPARE and the decision", decision=True)
        await self.lost_coordinator("4  kill -9 between the decision and the finish", decision=False)
        await self.books()
        return self.failures


async def run_demo(*, keep: bool) -> int:
    """The exit code."""
    console = Console(highlight=False)
    interrupted = _cancelled_by_signals()
    stage = Stage()
    failures: int | None = None
    try:
        failures = await Story(stage, console).tell()
        console.print()
        console.print(f"[bold red]{failures} claims did not hold" if failures else "[bold green]every claim held")
        if keep:
            await _keep(stage, console)
    except asyncio.CancelledError:
        console.print("\ninterrupted: cleaning up")
    finally:
        await stage.close()
    if failures is None:
        return 128 + interrupted[0]
    return 1 if failures else 0


def _cancelled_by_signals() -> list[int]:
    """Ctrl-C, SIGTERM and a closed terminal cancel this task, the first of them only; which came is told by the list."""
    task = asyncio.current_task()
    assert task is not None
    came: list[int] = []

    def interrupt(number: int) -> None:
        came.append(number)
        if len(came) == 1:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, interrupt, number)
    return came


async def _keep(stage: Stage, console: Console) -> None:
    console.print(f"\nleft running until Ctrl-C:\n  psql '{stage.dsn}'", markup=False, soft_wrap=True)
    for number, server in enumerate(stage.servers):
        console.print(f"  shard {number}, as superuser: psql '{server.dsn('shop')}'", markup=False, soft_wrap=True)
    manifest = stage.directory / "shop.yaml"
    manifest.touch(mode=0o600)
    manifest.write_text(stage.manifest())
    console.print(f"  pgshepherd check -f {manifest}\n  pgshepherd transactions list -f {manifest}", markup=False, soft_wrap=True)
    await asyncio.Event().wait()
