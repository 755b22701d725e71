"""The README's shop on a kind cluster: commands, SQL on its shards, an application in a pod, kills."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import teller
from bench import accounts_on
from kube import Kubectl
from tools.cluster.say import say

ROOT = Path(__file__).parents[2]
SECTION = "Use it on Kubernetes"
"""Of the README."""
PATIENCE = 180.0
"""Seconds until something that must happen has happened; pods start and stop meanwhile."""
DSN = "postgresql://app:shop-app-password@shop-proxy:6432/shop"
SHARDS = ("pg-0-0", "pg-1-0")
"""The shards' pods."""
OPENING = 1000
ACCOUNTS = accounts_on(2, 30)
OPERATOR = "app.kubernetes.io/name=pgshepherd,app.kubernetes.io/component=operator"

_CLIENT = """
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: client
      image: pgshepherd/proxy:dev
      command: [sleep, infinity]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""
_PROGRAM = Path(teller.__file__).read_text()
_KILL = "kill -9 $(grep -lz '^PGSHEPHERD_INSTANCE_NAME={pod}$' /proc/[0-9]*/environ 2> /dev/null | cut -d/ -f3)"
"""On a node: nobody in a container can kill its first process, and Kubernetes would ask it to end first."""


async def until(holds: Callable[[], Awaitable[bool]], patience: float = PATIENCE) -> None:
    """Wait until it does; TimeoutError if it never does."""
    async with asyncio.timeout(patience):
        while not await holds():
            await asyncio.sleep(0.5)


@dataclass(frozen=True)
class Shop:
    """What the README's commands have made."""

    environment: Mapping[str, str]
    """In which docker, kind, kubectl and make work on the cluster."""

    @property
    def kubectl(self) -> Kubectl:
        program = shutil.which("kubectl", path=self.environment["PATH"])
        assert program is not None
        return Kubectl(Path(program), Path(self.environment["KUBECONFIG"]), "shop")

    def shell(self, command: str, stdin: str = "", timeout: float = 1800.0) -> str:
        """Run a line as a person would, at the repository's root."""
        say(f"$ {command}")
        done = subprocess.run(
            ["bash", "-c", command], input=stdin, cwd=ROOT, env=self.environment, text=True, timeout=timeout, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        sys.stderr.write(done.stdout)
        assert done.returncode == 0, f"{command}: exit {done.returncode}: {done.stdout[-2000:]}"
        return done.stdout

    async def get(self, *what: str) -> Any:
        """An object, or a list's items."""
        found = json.loads(await self.kubectl("get", *what, "-o", "json"))
        return found["items"] if found["kind"].endswith("List") else found

    async def conditions(self) -> dict[str, tuple[str, str]]:
        """Status and reason, by type."""
        status = (await self.get("shc", "shop"))["status"]
        return {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}

    async def wait(self, condition: str) -> None:
        """Until it is True."""
        wait = ("wait", f"--for=condition={condition}", "shc/shop", f"--timeout={PATIENCE:.0f}s")
        await self.kubectl(*wait, timeout=PATIENCE + 10)

    async def sql(self, shard: str, statement: str) -> list[str]:
        """Rows from a shard itself, as its superuser."""
        psql = ("psql", "--no-psqlrc", "-qAt", "--username=postgres", "--dbname=shop", f"--command={statement}")
        return (await self.kubectl("exec", shard, "--", *psql)).splitlines()

    async def prepared(self, seconds: int = 0) -> list[str]:
        """GIDs on all shards that have been prepared for at least so long."""
        ask = f"SELECT gid FROM pg_prepared_xacts WHERE prepared <= clock_timestamp() - interval '{seconds} s'"
        return [gid for rows in await asyncio.gather(*(self.sql(shard, ask) for shard in SHARDS)) for gid in rows]

    async def nothing_prepared(self) -> bool:
        return not await self.prepared()

    async def resolutions(self) -> float:
        """Parts of transactions that recovery has finished, by the operator's own count."""
        (pod,) = await self.get("pods", "--namespace=pgshepherd", "-l", OPERATOR)
        path = f"/api/v1/namespaces/pgshepherd/pods/{pod['metadata']['name']}:8080/proxy/metrics"
        lines = (await self.kubectl("get", "--raw", path)).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("pgshepherd_resolutions_total{"))

    async def open_accounts(self) -> None:
        """Through the Service, by psql in a shard's pod."""
        await self.through_service(
            "CREATE TABLE accounts (customer_id bigint PRIMARY KEY, balance bigint NOT NULL)",
            "CREATE TABLE entries (customer_id bigint, token text, amount bigint, PRIMARY KEY (customer_id, token))",
            *(f"INSERT INTO accounts VALUES ({account}, {OPENING})" for home in ACCOUNTS for account in home),
        )

    async def through_service(self, *statements: str) -> list[str]:
        """Rows of the last statement."""
        script = "".join(f"{statement};\n" for statement in statements)
        psql = ("psql", "--no-psqlrc", "-qAt", "--set=ON_ERROR_STOP=1", DSN)
        return (await self.kubectl("exec", "-i", SHARDS[0], "--", *psql, stdin=script)).splitlines()

    async def start_client(self) -> None:
        """The pod that applications run in."""
        await self.kubectl.apply(_CLIENT)
        await self.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=120s", timeout=130)

    @asynccontextmanager
    async def transfers(self, tellers: int = 20) -> AsyncIterator[dict[str, str]]:
        """Run all the time inside; afterwards the dictionary says what each was told, by token."""
        told: dict[str, str] = {}
        kubectl = self.kubectl
        arguments = json.dumps({"dsn": DSN, "accounts": ACCOUNTS, "tellers": tellers})
        process = await asyncio.create_subprocess_exec(
            kubectl.program, "--namespace=shop", "exec", "-i", "client", "--", "python3", "-c", _PROGRAM, arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=self.environment,
        )  # fmt: skip
        try:
            yield told
            out, _ = await asyncio.wait_for(process.communicate(b""), PATIENCE)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0
        told.update(json.loads(out))

    async def kill_proxy(self, turn: int) -> None:
        """SIGKILL, from the node; another proxy at each turn, since the clients of the one before are with the others now."""
        pods = await self.get("pods", "-l", "pgshepherd.io/cluster=shop")
        pod = pods[turn % len(pods)]
        name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
        await asyncio.to_thread(self.shell, f"docker exec {node} sh -c {shlex.quote(_KILL.format(pod=name))}")

    async def audit(self, told: Mapping[str, str]) -> None:
        """The books are exact, every transfer is on both shards or on none, and nobody was told a lie."""
        ask = "SELECT token FROM entries"
        first, second = [set(rows) for rows in await asyncio.gather(*(self.sql(shard, ask) for shard in SHARDS))]
        assert first == second
        committed = {token for token, word in told.items() if word == teller.COMMITTED}
        failed = {token for token, word in told.items() if word == teller.FAILED}
        assert committed <= first, "told committed, and is not"
        assert not failed & first, "told failed, and is committed"
        wrong = (
            f"SELECT customer_id FROM accounts a WHERE balance <> {OPENING} + "
            "(SELECT coalesce(sum(amount), 0) FROM entries e WHERE e.customer_id = a.customer_id)"
        )
        sums = []
        for shard in SHARDS:
            assert await self.sql(shard, wrong) == []
            sums.append(int((await self.sql(shard, "SELECT sum(balance) FROM accounts"))[0]))
        assert sum(sums) == OPENING * sum(len(home) for home in ACCOUNTS)

    def describe(self) -> None:
        """All that a person would look at after a failure."""
        namespaced = [
            "kubectl get pods,shc,deployments,pvc -A -o wide",
            "kubectl describe shc shop -n shop",
            "kubectl get events -A --sort-by=.lastTimestamp",
            "kubectl describe pods -n shop",
            "kubectl logs -n pgshepherd deploy/pgshepherd-operator --tail=100",
            "kubectl logs -n shop -l pgshepherd.io/cluster=shop --tail=60 --prefix",
            *(f"kubectl logs -n shop {shard} --tail=40" for shard in SHARDS),
        ]
        for command in namespaced:
            try:
                self.shell(command, timeout=60)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                say(str(error))


def environment(extra: Mapping[str, str], *folders: Path) -> dict[str, str]:
    """Ours and more, with these folders before all in PATH."""
    path = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
    return {**os.environ, **extra, "PATH": path}
