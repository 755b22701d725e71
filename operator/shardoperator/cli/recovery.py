"""recover, and transactions list and explain: from a manifest or from DSNs alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from shardoperator.cli.inputs import SecretsOption
from shardoperator.cli.output import ExitCode, Format, OutputOption, console, errors, fail, print_json, print_transactions
from shardoperator.cli.source import (
    ContextOption,
    KubeconfigOption,
    NameArgument,
    NamespaceOption,
    OptionalFile,
    Place,
    place_of,
    read,
)
from shardoperator.controller.targets import targets
from shardoperator.errors import ShardoperatorError
from shardoperator.models.observation import RecoveryReport
from shardoperator.models.status import transaction_json
from shardoperator.models.values import seconds
from shardoperator.recovery.controller import RecoveryController
from shardoperator.shards.connect import ShardTarget
from shardoperator.shards.discover import Discovered, discover, parse_dsn
from shardproxy.twophase.evidence import TransactionClass

DsnOption = Annotated[
    list[str] | None, typer.Option("--dsn", help="postgresql://user:password@host:port/database of a shard; repeat")
]
GraceOption = Annotated[str, typer.Option("--grace", help="younger ones are left to their coordinator")]

transactions = typer.Typer(no_args_is_help=True, help="Prepared transactions: what there is, and why.")


def _targets(file: Path | None, secrets: Path | None, dsns: list[str] | None, place: Place | None = None) -> list[ShardTarget]:
    if sum(map(bool, (file, dsns, place))) != 1:
        text = "a manifest (-f), the shards' DSNs (--dsn, once for each), or the name of a ShardedCluster in Kubernetes"
        fail(f"give one of these: {text}", ExitCode.USAGE)
    if not dsns:
        loaded = read(file, secrets, place)
        known = targets(loaded.cluster, loaded.secrets)
        if known.missing:
            fail(f"not found: {', '.join(known.missing)}", ExitCode.FINDING)
        return list(known.reachable)
    try:
        return [parse_dsn(dsn, index) for index, dsn in enumerate(dsns or [])]
    except ShardoperatorError as error:
        fail(str(error), ExitCode.USAGE)


async def _controller(given: list[ShardTarget], grace: str, *, resolve: bool) -> tuple[RecoveryController, Discovered]:
    """Cluster id, numbers and members are read from the shards themselves."""
    found = await discover(given)
    return RecoveryController(found.cluster, found.targets, found.members, grace=seconds(grace), resolve=resolve), found


def _pass(given: list[ShardTarget], grace: str) -> RecoveryReport:
    async def look() -> RecoveryReport:
        controller, found = await _controller(given, grace, resolve=False)
        for where, why in found.failed:
            errors.print(f"{where}: {why}", markup=False)
        return await controller.run_pass()

    try:
        return asyncio.run(look())
    except (ShardoperatorError, ValueError) as error:
        fail(str(error), ExitCode.FINDING)


@transactions.command("list")
def list_transactions(
    name: NameArgument = None,
    file: OptionalFile = None,
    secrets: SecretsOption = None,
    dsn: DsnOption = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
    grace: GraceOption = "5s",
    output: OutputOption = Format.TABLE,
) -> None:
    """Every prepared transaction on every shard, its class, its age, and whom it blocks.  Changes nothing.

    Example: pgshepherd transactions list -f shop.yaml
    """
    report = _pass(_targets(file, secrets, dsn, place_of(name, namespace, kubeconfig, context)), grace)
    print_transactions(report.transactions, output)
    for number, why in report.failed:
        errors.print(f"shard {number} could not be scanned: {why}", markup=False)
    raise typer.Exit(ExitCode.FINDING if report.failed else ExitCode.DONE)


@transactions.command("explain")
def explain(
    gid: Annotated[str, typer.Argument(help="a GID, or the 32 hex digits of a transaction")],
    name: NameArgument = None,
    file: OptionalFile = None,
    secrets: SecretsOption = None,
    dsn: DsnOption = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """What every shard shows of one transaction, what recovery would do, and why.  Changes nothing.

    Example: pgshepherd transactions explain 0123456789abcdef0123456789abcdef -f shop.yaml
    """
    report = _pass(_targets(file, secrets, dsn, place_of(name, namespace, kubeconfig, context)), "0s")
    parts = [one for one in report.transactions if one.gid == gid or f"_{gid}_" in one.gid]
    if not parts:
        fail(f"no prepared transaction {gid} on the shards that could be scanned", ExitCode.FINDING)
    if output is Format.JSON:
        print_json([transaction_json(one) for one in parts])
        return
    for one in parts:
        console.print(one.gid, markup=False, soft_wrap=True)
        console.print(
            f"  shard {one.shard}, database {one.database}, owner {one.owner}, {one.age:.1f} s old, xid age {one.xid_age}"
        )
        console.print(f"  blocks {', '.join(one.blocks) or 'nobody'}", markup=False)
        console.print(f"  class {one.transaction_class.value}: {one.reason}", markup=False, soft_wrap=True)
    for line in parts[0].evidence:
        console.print(f"  evidence: {line}", markup=False, soft_wrap=True)
    console.print(f"  recovery would {_would(parts[0].transaction_class)}", markup=False)


def _would(transaction_class: TransactionClass) -> str:
    match transaction_class:
        case TransactionClass.COMMITTED:
            return "commit it on every shard: a commit record proves the decision"
        case TransactionClass.ABORTED:
            return "roll it back on every shard: nothing was decided, and winning the decision shard first makes sure that nothing will be"
        case TransactionClass.FOREIGN:
            return "never touch it"
        case _:
            return "do nothing yet, alert, and look again: it never guesses"


def recover(
    file: OptionalFile = None,
    secrets: SecretsOption = None,
    dsn: DsnOption = None,
    grace: GraceOption = "5s",
    interval: Annotated[str, typer.Option("--interval", help="pause between passes; 0s = one pass")] = "0s",
    observe: Annotated[bool, typer.Option("--observe", help="look and report, change nothing")] = False,
) -> None:
    """Resolve prepared transactions of ours by the evidence in the shards: one pass, or a loop.

    Needs no coordinator, none of its disk, and no Kubernetes.  Safe to run anywhere at any time, several at once.

    Example: pgshepherd recover --dsn postgresql://recovery:secret@pg-0/shop --dsn postgresql://recovery:secret@pg-1/shop
    """
    given = _targets(file, secrets, dsn)
    try:
        pause = seconds(interval)
        findings = asyncio.run(_loop(given, grace, pause, resolve=not observe))
    except (ShardoperatorError, ValueError) as error:
        fail(str(error), ExitCode.FINDING)
    raise typer.Exit(ExitCode.FINDING if findings else ExitCode.DONE)


async def _loop(given: list[ShardTarget], grace: str, pause: float, *, resolve: bool) -> bool:
    controller, found = await _controller(given, grace, resolve=resolve)
    for where, why in found.failed:
        errors.print(f"{where}: {why}", markup=False)
    while True:
        report = await controller.run_pass()
        for action in report.actions:
            console.print(action, markup=False, soft_wrap=True)
        open_ones = [
            one for one in report.ours() if one.transaction_class not in (TransactionClass.COMMITTED, TransactionClass.ABORTED)
        ]
        for one in open_ones:
            console.print(
                f"{one.gid} on shard {one.shard}: {one.transaction_class.value}: {one.reason}", markup=False, soft_wrap=True
            )
        for number, why in report.failed:
            errors.print(f"shard {number} could not be scanned: {why}", markup=False)
        if not pause:
            if not report.actions and not open_ones:
                console.print("nothing to resolve")
            return bool(report.failed or found.failed or open_ones)
        await asyncio.sleep(pause)
