"""transactions commit, rollback and acknowledge: what a person decides, with a reason that stays in pgshepherd.audit."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from shardoperator.cli.inputs import SecretsOption
from shardoperator.cli.output import ExitCode, complain, console, fail
from shardoperator.cli.recovery import DsnOption, given_targets, not_looked_at
from shardoperator.cli.source import (
    ContextOption,
    KubeconfigOption,
    NameArgument,
    NamespaceOption,
    OptionalFile,
    place_of,
)
from shardoperator.errors import ShardoperatorError
from shardoperator.recovery import byhand
from shardoperator.recovery.byhand import Decision
from shardoperator.recovery.controller import RecoveryController
from shardoperator.shards.connect import ShardTarget
from shardoperator.shards.discover import discover

T = TypeVar("T")

TransactionArgument = Annotated[str, typer.Argument(help="a GID, or the 32 hex digits of a transaction")]
ReasonOption = Annotated[str, typer.Option("--reason", help="why; it stays in pgshepherd.audit")]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force-against-evidence", help="even where the evidence says otherwise or could not be seen: this can split it"
    ),
]


def commit(
    transaction: TransactionArgument,
    reason: ReasonOption,
    name: NameArgument = None,
    file: OptionalFile = None,
    secrets: SecretsOption = None,
    dsn: DsnOption = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
    force: ForceOption = False,
) -> None:
    """Commit all prepared parts of one transaction.  Refused where the evidence says that it was aborted.

    Example: pgshepherd transactions commit 0123456789abcdef0123456789abcdef --reason "INC-7" -f shop.yaml
    """
    given = given_targets(file, secrets, dsn, place_of(name, namespace, kubeconfig, context))
    _decide(given, transaction, Decision.COMMIT, reason, force=force)


def rollback(
    transaction: TransactionArgument,
    reason: ReasonOption,
    name: NameArgument = None,
    file: OptionalFile = None,
    secrets: SecretsOption = None,
    dsn: DsnOption = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
    force: ForceOption = False,
) -> None:
    """Roll back all prepared parts of one transaction.  Refused where the evidence says that it was committed.

    Example: pgshepherd transactions rollback 0123456789abcdef0123456789abcdef --reason "INC-7" -f shop.yaml
    """
    given = given_targets(file, secrets, dsn, place_of(name, namespace, kubeconfig, context))
    _decide(given, transaction, Decision.ROLLBACK, reason, force=force)


def acknowledge(
    transaction: Annotated[str, typer.Argument(help="the 32 hex digits of a transaction")],
    reason: ReasonOption,
    name: NameArgument = None,
    file: OptionalFile = None,
    secrets: SecretsOption = None,
    dsn: DsnOption = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """End the alert of a loss: somebody has seen to it.  Brings nothing back.

    Example: pgshepherd transactions acknowledge 0123456789abcdef0123456789abcdef --reason "restored from the ledger" -f shop.yaml
    """
    given = given_targets(file, secrets, dsn, place_of(name, namespace, kubeconfig, context))
    if re.fullmatch("[0-9a-f]{32}", transaction) is None:
        fail(f"{transaction} is no transaction: 32 hex digits, as status and log show them", ExitCode.USAGE)
    why = _checked(reason)
    shards, failed = _run(given, lambda controller: byhand.acknowledge(controller, transaction, why))
    for line in failed:
        complain(line)
    if not shards:
        fail(f"no loss of {transaction} is written down and not yet acknowledged", ExitCode.FINDING)
    console.print(f"acknowledged on shards {', '.join(map(str, shards))}", markup=False)
    raise typer.Exit(ExitCode.FINDING if failed else ExitCode.DONE)


def _decide(given: list[ShardTarget], transaction: str, decision: Decision, reason: str, *, force: bool) -> None:
    why = _checked(reason)
    outcome = _run(given, lambda controller: byhand.decide(controller, transaction, decision, why, force=force))
    for line in outcome.verdict.evidence:
        console.print(f"evidence: {line}", markup=False, soft_wrap=True)
    for line in outcome.acted:
        console.print(line, markup=False, soft_wrap=True)
    for line in outcome.failures:
        complain(line)
    raise typer.Exit(ExitCode.FINDING if outcome.failures or not outcome.acted else ExitCode.DONE)


def _checked(reason: str) -> str:
    if not reason.strip():
        fail("--reason must say why: it is all that will be known later", ExitCode.USAGE)
    return reason.strip()


def _run(given: list[ShardTarget], action: Callable[[RecoveryController], Awaitable[T]]) -> T:
    async def act() -> T:
        found = await discover(given)
        for line in not_looked_at(found):
            complain(line)
        return await action(RecoveryController(found.cluster, found.targets, found.members, grace=0.0))

    try:
        return asyncio.run(act())
    except byhand.Objection as error:
        fail(f"refused: {error}\n--force-against-evidence does it all the same, and can split the transaction", ExitCode.FINDING)
    except ShardoperatorError as error:
        fail(str(error), ExitCode.FINDING)
