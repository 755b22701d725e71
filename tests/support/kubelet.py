"""A kubelet's part, played honestly: there are no nodes at the API level of the tests.

It takes the pods of one namespace as the API has them, runs each container's very command with the very files of its Secret, on a
loopback address of its own, and reports the real readiness as the pod's status.  Deleting a pod sends SIGTERM, and the pod is gone
when its process is.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardoperator.errors import KubernetesError
from shardoperator.kube.api import KubeApi, Resource, collection
from shardoperator.standalone.children import die_with_parent

_addresses = itertools.count(2)
MERGE = "application/merge-patch+json"


@dataclass
class Pod:
    """One that runs here."""

    name: str
    address: str
    directory: Path
    process: asyncio.subprocess.Process
    ready: bool | None = None
    stopping: bool = False


@dataclass
class Kubelet:
    """Of one namespace, as a node of that name."""

    api: KubeApi
    namespace: str
    directory: Path
    pods: dict[str, Pod] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Register the node, and follow the namespace's pods."""
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.namespace}}
        await self.api.request("POST", collection("v1", "nodes"), body=node)
        self._task = asyncio.create_task(self._follow(), name=f"kubelet {self.namespace}")

    async def close(self) -> None:
        """SIGKILL whatever still runs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for pod in self.pods.values():
            if pod.process.returncode is None:
                pod.process.kill()
                await pod.process.wait()
        await self.api.delete(f"{collection('v1', 'nodes')}/{self.namespace}")

    async def _follow(self) -> None:
        beats = 0
        while True:
            try:
                if beats % 20 == 0:
                    await self._heartbeat()
                await self._visit()
            except KubernetesError as error:
                self.failures.append(str(error))
            beats += 1
            await asyncio.sleep(0.2)

    async def _heartbeat(self) -> None:
        """Without it the node is taken for lost, and its pods for not ready."""
        status = {
            "conditions": [{"type": "Ready", "status": "True", "reason": "Played", "message": "", "lastHeartbeatTime": _now()}]
        }
        await self.api.request(
            "PATCH", f"{collection('v1', 'nodes')}/{self.namespace}/status", body={"status": status}, content_type=MERGE
        )

    async def _visit(self) -> None:
        found = {pod["metadata"]["name"]: pod for pod in await self.api.list(collection("v1", "pods", self.namespace))}
        for name, pod in found.items():
            if "deletionTimestamp" in pod["metadata"]:
                await self._stop(name)
            elif name not in self.pods:
                await self._run(name, pod)
            else:
                await self._report(self.pods[name])

    async def _run(self, name: str, pod: Resource) -> None:
        if not pod["spec"].get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": self.namespace}
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
            await self.api.request("POST", f"{self._path(name)}/binding", body=binding)
        (container,) = pod["spec"]["containers"]
        address = f"127.0.77.{next(_addresses)}"
        directory = self.directory / name
        command = await self._mounted(pod, container, directory)
        environment = {item["name"]: item.get("value", name) for item in container.get("env", [])}
        places = {"PGDOG_HOST": address, "PGDOG_OPENMETRICS_HOST": address, "PGSHEPHERD_HEALTH_HOST": address}
        with (directory / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "shardoperator.cli.main", *command[1:], stdout=log, stderr=log, preexec_fn=die_with_parent,
                env={**os.environ, **environment, **places},
            )  # fmt: skip
        assert command[0] == "pgshepherd"
        self.pods[name] = Pod(name, address, directory, process)

    async def _mounted(self, pod: Resource, container: Resource, directory: Path) -> list[str]:
        """Write the Secret volumes, and put their place into the command."""
        command: list[str] = container["command"]
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for number, mount in enumerate(container["volumeMounts"]):
            secret = await self.api.request(
                "GET", f"{collection('v1', 'secrets', self.namespace)}/{volumes[mount['name']]['secret']['secretName']}"
            )
            place = directory / str(number)
            place.mkdir(parents=True)
            for key, value in secret["data"].items():
                (place / key).write_bytes(base64.b64decode(value))
            command = [word.replace(mount["mountPath"], str(place)) for word in command]
        return command

    async def _report(self, pod: Pod) -> None:
        alive = pod.process.returncode is None
        ready = alive and await _answers(pod.address)
        if ready is pod.ready:
            return
        status: dict[str, Any] = {
            "phase": "Running" if alive else "Failed",
            "podIP": pod.address,
            "podIPs": [{"ip": pod.address}],
            "conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": _now()}],
        }
        await self.api.request("PATCH", f"{self._path(pod.name)}/status", body={"status": status}, content_type=MERGE)
        pod.ready = ready

    async def _stop(self, name: str) -> None:
        pod = self.pods.get(name)
        if pod is not None and pod.process.returncode is None:
            if not pod.stopping:
                pod.process.send_signal(signal.SIGTERM)
            pod.stopping = True
            return
        await self.api.request("DELETE", self._path(name), body={"gracePeriodSeconds": 0})
        if pod is not None:
            shutil.rmtree(pod.directory)
            del self.pods[name]

    def _path(self, name: str) -> str:
        return f"{collection('v1', 'pods', self.namespace)}/{name}"

    def running(self) -> list[Pod]:
        """Those whose process is alive."""
        return [pod for pod in self.pods.values() if pod.process.returncode is None]


async def _answers(address: str) -> bool:
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(address, 8080)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = await reader.read(64)
            writer.close()
    except (OSError, TimeoutError):
        return False
    return answer.startswith(b"HTTP/1.1 200")


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
