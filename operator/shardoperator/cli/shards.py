"""check and adopt."""

from __future__ import annotations

import asyncio
import secrets as random
from typing import Annotated

import typer

from shardoperator.cli.inputs import SecretsOption, logins
from shardoperator.cli.output import ExitCode, Format, OutputOption, console, fail, print_json
from shardoperator.cli.source import (
    ContextOption,
    KubeconfigOption,
    NameArgument,
    NamespaceOption,
    OptionalFile,
    place_of,
    read,
)
from shardoperator.controller.targets import Targets
from shardoperator.errors import ShardError
from shardoperator.models.manifest import Manifest
from shardoperator.models.observation import ShardObservation
from shardoperator.reconcile.inputs import Inputs
from shardoperator.reconcile.plan import plan
from shardoperator.reconcile.shards import shards_reachable
from shardoperator.shards.adopt import adopt as adopt_shards
from shardoperator.shards.adopt import forget as forget_member
from shardoperator.shards.install import install_sql
from shardoperator.shards.probe import probe


def check(
    name: NameArgument = None,
    file: OptionalFile = None,
    secrets: SecretsOption = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
    sql: Annotated[bool, typer.Option("--sql", help="print what a DBA must run on each shard")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Every probe of every shard, and what to change.  Changes nothing.  Exit code 1 if there is something to change.

    The shards are asked from here: for a cluster in Kubernetes run it where their host names are known, such as in the operator's pod.

    Example: pgshepherd check -f shop.yaml

    Example: kubectl exec -n pgshepherd deploy/pgshepherd-operator -- pgshepherd check shop -n db
    """
    loaded = read(file, secrets, place_of(name, namespace, kubeconfig, context))
    known = logins(loaded)
    shards = asyncio.run(_probe(loaded, known))
    inputs = Inputs(loaded.cluster, shards, instances=loaded.cluster.spec.proxy.replicas + 1, missing_secrets=known.missing)
    if sql:
        _print_sql(loaded, known, inputs)
        return
    decided = plan(inputs)
    wanted = [decided.condition("ShardsReachable"), decided.condition("TwoPhaseReady")]
    findings = [one for one in wanted if one.status != "True" and one.reason != "NotRequested"]
    waiting = bool(findings) and all(one.message.startswith("not adopted yet") for one in findings)
    if output is Format.JSON:
        print_json([one.to_json() for one in wanted])
    else:
        for one in wanted:
            mark = "ok  " if one not in findings else "FIND"
            console.print(f"{mark} {one.type}={one.status} {one.reason}", markup=False)
            for line in one.message.split("; "):
                console.print(f"     {line}", markup=False, soft_wrap=True)
    if waiting:
        console.print("     (`pgshepherd run`, the operator, or `pgshepherd adopt` adopts them)", markup=False)
    raise typer.Exit(ExitCode.FINDING if findings and not waiting else ExitCode.DONE)


async def _probe(loaded: Manifest, known: Targets) -> tuple[ShardObservation, ...]:
    spec = loaded.cluster.spec

    async def one(position: int) -> ShardObservation:
        target, logins = known.recovery[position], known.logins[position]
        if target is None or logins is None:
            shard = spec.shards[position]
            return ShardObservation(
                shard.name, spec.number(position), reachable=False, reason="SecretNotFound", message="no login"
            )
        return await probe(target, logins)

    return tuple(await asyncio.gather(*(one(position) for position in range(len(spec.shards)))))


def _print_sql(loaded: Manifest, known: Targets, inputs: Inputs) -> None:
    for position, shard in enumerate(loaded.cluster.spec.shards):
        logins, seen = known.logins[position], inputs.shards[position]
        print(f"-- shard {shard.name}: in database {shard.database} on {shard.host}:{shard.port}, as a superuser")
        if logins is None:
            print("-- its Secrets are missing, so the logins are not known")
            continue
        needed = inputs.needed_slots(position)
        if seen.max_prepared_transactions is None or seen.max_prepared_transactions < needed:
            print(f"ALTER SYSTEM SET max_prepared_transactions = {needed};  -- then restart PostgreSQL")
        print(install_sql(logins, seen.version or 160000))


def adopt(
    name: NameArgument = None,
    file: OptionalFile = None,
    secrets: SecretsOption = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
    forget_shard: Annotated[
        int | None, typer.Option("--forget-shard", min=0, help="a member that is gone for ever, by its number")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="why it is forgotten; it stays in pgshepherd.audit")] = "",
) -> None:
    """Write down on each shard which cluster it belongs to, and its number, for ever.

    `run` and the operator do this by themselves; this is for doing it by hand.

    --forget-shard: a member that is gone for ever holds back clean-up, and every abort after a failover; from now on it counts as
    reached, without evidence.  What is prepared and only it could decide is then a person's to decide.

    Example: pgshepherd adopt -f shop.yaml

    Example: pgshepherd adopt -f shop.yaml --forget-shard 2 --reason "disk lost, no backup: INC-7"
    """
    loaded = read(file, secrets, place_of(name, namespace, kubeconfig, context))
    known = logins(loaded)
    if forget_shard is not None:
        _forget(loaded, known, forget_shard, reason.strip())
        return
    shards = asyncio.run(_probe(loaded, known))
    reachable = shards_reachable(Inputs(loaded.cluster, shards, instances=1, missing_secrets=known.missing))
    if reachable.status != "True":
        fail(reachable.message, ExitCode.FINDING)
    problems = [problem.message for shard in shards for problem in shard.problems]
    if problems:
        fail("\n".join(problems), ExitCode.FINDING)
    try:
        cluster_id = asyncio.run(adopt_shards(known.reachable, loaded.cluster.spec.cluster_id or random.token_hex(8)))
    except ShardError as error:
        fail(str(error), ExitCode.FINDING)
    console.print(f"{len(known.reachable)} shards belong to cluster {cluster_id}")


def _forget(loaded: Manifest, known: Targets, number: int, reason: str) -> None:
    if not reason:
        fail("--reason must say why: it is all that will be known later", ExitCode.USAGE)
    if number in loaded.cluster.spec.numbers.values():
        fail(f"shard {number} is still in spec.shards: take it out there first", ExitCode.USAGE)
    if known.missing:
        fail(f"not found: {', '.join(known.missing)}", ExitCode.FINDING)
    try:
        asyncio.run(forget_member(known.reachable, number, reason))
    except ShardError as error:
        fail(str(error), ExitCode.FINDING)
    console.print(f"{len(known.reachable)} shards have forgotten member {number}")
