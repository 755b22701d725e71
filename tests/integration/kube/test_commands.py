"""status, check and transactions against the Kubernetes API, also as `kubectl pgshepherd`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import PASSWORD
from kubeworld import World

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


async def run(world: World, program: str, *arguments: str) -> Said:
    environment = {**os.environ, "KUBECONFIG": str(world.kubectl.kubeconfig), "COLUMNS": "200"}
    environment["PATH"] = f"{BIN}{os.pathsep}{world.kubectl.program.parent}{os.pathsep}{environment['PATH']}"
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    assert PASSWORD not in out.decode() + err.decode()
    assert "Traceback" not in err.decode(), err.decode()
    return Said(process.returncode, out.decode(), err.decode())


async def test_a_cluster_that_is_ready(world: World) -> None:
    await world.apply()
    await world.wait("Ready")
    here = ("-n", world.kubectl.namespace)
    status = await run(world, "pgshepherd", "status", "shop", *here)
    assert (status.code, "AllShardsReady" in status.out) == (0, True)
    data = json.loads((await run(world, "pgshepherd", "status", "shop", *here, "-o", "json")).out)
    assert data["shardsSummary"] == "2/2"
    plugin = await run(world, "kubectl", "pgshepherd", "status", "shop", *here)
    assert plugin == status
    check = await run(world, "pgshepherd", "check", "shop", *here)
    assert (check.code, "ok   TwoPhaseReady=True Sufficient" in check.out) == (0, True), check
    listed = await run(world, "pgshepherd", "transactions", "list", "shop", *here)
    assert (listed.code, listed.out.strip()) == (0, "no prepared transactions")


async def test_a_cluster_that_is_not(world: World) -> None:
    await world.kubectl("delete", "secret", "app")
    await world.apply()
    await world.until_reason("ShardsReachable", "SecretNotFound")
    here = ("-n", world.kubectl.namespace)
    status = await run(world, "pgshepherd", "status", "shop", *here)
    assert (status.code, "SecretNotFound" in status.out) == (1, True)
    check = await run(world, "pgshepherd", "check", "shop", *here)
    assert (check.code, "Secret app with the key password" in check.out) == (1, True), check


@pytest.mark.parametrize("verb", [("status",), ("check",), ("transactions", "list")])
async def test_what_can_not_be_read_is_exit_code_3(world: World, verb: tuple[str, ...]) -> None:
    missing = await run(world, "pgshepherd", *verb, "nobody", "-n", world.kubectl.namespace)
    assert (missing.code, '"nobody" not found' in missing.err) == (3, True), missing
    nowhere = await run(world, "pgshepherd", *verb, "shop", "--kubeconfig", "does-not-exist")
    assert (nowhere.code, "there is no kubeconfig does-not-exist" in nowhere.err) == (3, True), nowhere
