"""recover, and transactions list and explain: from a manifest, DSNs, or a ShardedCluster's name."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from shardoperator.cli.inputs import SecretsOption, duration, logins
from shardoperator.cli.output import ExitCode, Format, OutputOption, complain, console, fail, print_json, print_transactions
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
from shardoperator.errors import ShardoperatorError
from shardoperator.models.observation import PreparedTransaction, RecoveryReport
from shardoperator.models.status import transaction_json
from shardoperator.recovery.controller import RecoveryController
from shardoperator.shards.connect import ShardTarget
from shardoperator.shards.discover import Discovered, discover, parse_dsn
from shardproxy.twophase.evidence import TransactionClass

DsnOption = Annotated[
    list[str] | None, typer.Option("--dsn", help="postgresql://user:password@host:port/database of a shard; repeat")
]
GraceOption = Annotated[str, typer.Option("--grace", help="younger ones are left to their coordinator")]

transactions = typer.Typer(no_args_is_help=True, help="Prepared transactions: what there is, and why.")


def given_targets(
    file: Path | None, secrets: Path | None, dsns: list[str] | None, place: Place | None = None
) -> list[ShardTarget]:
    if sum(map(bool, (file, dsns, place))) != 1:
        text = "a manifest (-f), the shards' DSNs (--dsn, once for each), or the name of a ShardedCluster in Kubernetes"
        fail(f"give one of these: {text}", ExitCode.USAGE)
    if not dsns:
        known = logins(read(file, secrets, place))
        if known.missing:
            fail(f"not found: {', '.join(known.missing)}", ExitCode.FINDING)
        return list(known.reachable)
    try:
        return [parse_dsn(dsn, index) for index, dsn in enumerate(dsns or [])]
    except ShardoperatorError as error:
        fail(str(error), ExitCode.USAGE)


def not_looked_at(found: Discovered) -> list[str]:
    """Shards of which nothing is known in this pass: a finding, whatever the others show."""
    lines = [f"{where}: {why}" for where, why in found.failed]
    missing = sorted(found.members - {target.number for target in found.targets})
    if len(missing) > len(found.failed):
        numbers = ", ".join(str(number) for number in missing)
        lines.append(f"not looked at: members {numbers} of cluster {found.cluster}: name every shard")
    return lines


def _pass(given: list[ShardTarget], grace: float) -> tuple[RecoveryReport, bool]:
    """One look that changes nothing, and whether it saw every shard; what it could not see is said."""

    async def look() -> tuple[RecoveryReport, list[str]]:
        found = await discover(given)
        controller = RecoveryController(found.cluster, found.targets, found.members, grace=grace, resolve=False)
        report = await controller.run_pass()
        return report, [*not_looked_at(found), *_failed(report)]

    try:
        report, unseen = asyncio.run(look())
    except ShardoperatorError as error:
        fail(str(error), ExitCode.FINDING)
    for line in unseen:
        complain(line)
    return report, not unseen


def _failed(report: RecoveryReport) -> list[str]:
    return [f"shard {number} could not be scanned: {why}" for number, why in report.failed]


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
    given = given_targets(file, secrets, dsn, place_of(name, namespace, kubeconfig, context))
    report, complete = _pass(given, duration(grace, "--grace"))
    print_transactions(report.transactions, output, complete=complete)
    raise typer.Exit(ExitCode.DONE if complete else ExitCode.FINDING)


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
    report, complete = _pass(given_targets(file, secrets, dsn, place_of(name, namespace, kubeconfig, context)), 0.0)
    parts = [one for one in report.transactions if one.gid == gid or f"_{gid}_" in one.gid]
    if not parts:
        fail(f"no prepared transaction {gid} on the shards that could be scanned", ExitCode.FINDING)
    if output is Format.JSON:
        print_json([transaction_json(one) for one in parts])
    else:
        _print_explanation(parts)
    raise typer.Exit(ExitCode.DONE if complete else ExitCode.FINDING)


def _print_explanation(parts: list[PreparedTransaction]) -> None:
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
    if parts[0].transaction_class in _OPEN:
        verbs = "pgshepherd transactions commit|rollback GID --reason ..."
        console.print(f"  a person can decide it: {verbs}: see what every shard's data says first", markup=False, soft_wrap=True)


_OPEN = (TransactionClass.IN_DOUBT, TransactionClass.RESURRECTED, TransactionClass.UNREACHABLE)


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
    given = given_targets(file, secrets, dsn)
    pause, wait = duration(interval, "--interval"), duration(grace, "--grace")
    try:
        findings = asyncio.run(_loop(given, wait, pause, resolve=not observe))
    except ShardoperatorError as error:
        fail(str(error), ExitCode.FINDING)
    raise typer.Exit(ExitCode.FINDING if findings else ExitCode.DONE)


async def _loop(given: list[ShardTarget], grace: float, pause: float, *, resolve: bool) -> bool:
    """Cluster id, numbers and members are read from the shards themselves, again while one is not known yet."""
    found = await discover(given)
    controller = RecoveryController(found.cluster, found.targets, found.members, grace=grace, resolve=resolve)
    while True:
        report = await controller.run_pass()
        unseen = [*not_looked_at(found), *_failed(report)]
        findings = _print_pass(report, unseen, resolve=resolve)
        await controller.clean()
        due = controller.fence_due()
        if not pause and due is None:
            return findings
        await asyncio.sleep(pause or due or 0.0)
        if found.failed:
            found = await _again(given, found)
            controller.targets, controller.members = found.targets, controller.members | found.members


async def _again(given: list[ShardTarget], known: Discovered) -> Discovered:
    try:
        found = await discover(given)
    except ShardoperatorError as error:
        complain(str(error))
        return known
    if found.cluster != known.cluster:
        complain(f"now cluster {found.cluster} answers in the place of {known.cluster}: nothing is done there")
        return known
    return found


def _print_pass(report: RecoveryReport, unseen: list[str], *, resolve: bool) -> bool:
    """Whether there is a finding."""
    for action in report.actions:
        console.print(action, markup=False, soft_wrap=True)
    finished = (TransactionClass.COMMITTED, TransactionClass.ABORTED) if resolve else ()
    left = [one for one in report.ours() if one.transaction_class not in finished]
    for one in left:
        line = f"{one.gid} on shard {one.shard}: {one.transaction_class.value}: {one.reason}"
        console.print(line, markup=False, soft_wrap=True)
    for line in unseen:  # what failed was logged
        complain(line)
    if not report.actions and not report.failures and not left:
        console.print("nothing to resolve on the shards that answered" if unseen else "nothing to resolve")
    return bool(unseen or report.failures or left)
