"""A cluster from beginning to end: 1 + 1 nodes, a pod of the base image, a volume, a Service by name, nothing left behind."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tools.cluster.kind import cluster
from tools.cluster.kind.engine import control_groups, engine
from tools.cluster.kind.state import STATE
from tools.cluster.process import run
from tools.cluster.say import ClusterError, say, step

_NAME = "pgshepherd-smoke"
_WORKLOAD = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: web
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      securityContext: {runAsNonRoot: true, runAsUser: 999, fsGroup: 999, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: web
        image: IMAGE
        command: [sh, -c, "hostname > /data/index.html; exec python3 -m http.server -d /data 8080"]
        volumeMounts: [{name: data, mountPath: /data}]
        readinessProbe: {httpGet: {port: 8080, path: /}, periodSeconds: 1}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""
_FETCH = "from urllib.request import urlopen; print(urlopen('http://web.default.svc/', timeout=20).read().decode())"


def _namespaces(process: Path) -> set[Path]:
    try:
        return {(process / "ns" / kind).readlink() for kind in ("net", "mnt")}
    except OSError:  # it has ended
        return set()


def _leftovers(namespaces: set[Path]) -> list[str]:
    """What still belongs to the cluster; if it was the engine's last, also what belongs to the engine, wherever it is."""
    names = {_NAME}
    found = [str(path) for path in STATE.glob(f"{_NAME}.*")]
    if cluster.names():
        namespaces = set()  # the engine goes on for others
    else:
        names.add(str(STATE))
        found += [str(path) for path in (*control_groups(), STATE) if path.exists()]
        found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(STATE) in line]
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if any(name in command for name in names) or namespaces & _namespaces(process):
                found.append(f"process {process.name}: {command}")
    return found


def _image() -> str:
    image = cluster.base()
    if not image:
        image = "python:3.11-slim-bookworm"
        engine().docker("pull", "--quiet", image)
    return image


def smoke() -> None:
    """Raises ClusterError at the first thing that does not work."""
    namespaces: set[Path] = set()
    try:
        cluster.up(_NAME, 1)
        if pid := engine().pid:
            namespaces = _namespaces(Path(f"/proc/{pid}")) - _namespaces(Path("/proc/self"))
        image = _image()
        cluster.load(_NAME, image)
        with step("a pod of the base image, a StatefulSet with volumes, a Service by name"):
            _use(image)
        say(f"on disk: {run('du', '-sh', STATE).split()[0]}")
    finally:
        cluster.down(_NAME)
    if left := _leftovers(namespaces):
        raise ClusterError(f"{len(left)} things are left behind: {'; '.join(left[:5])}")
    say("smoke test passed: nothing is left behind")


def _output_of(image: str, name: str, *command: str) -> str:
    """What a command writes in a pod of its own. Not `run --attach`: it misses what a short command writes."""
    cluster.kubectl(_NAME, "run", name, "--image", image, "--restart=Never", "--command", "--", *command)
    cluster.kubectl(_NAME, "wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=300s")
    return cluster.kubectl(_NAME, "logs", name).strip()


def _use(image: str) -> None:
    say(_output_of(image, "version", "python3", "--version"))
    cluster.kubectl(_NAME, "apply", "-f", "-", stdin=_WORKLOAD.replace("IMAGE", image))
    cluster.kubectl(_NAME, "rollout", "status", "statefulset/web", "--timeout=300s")
    answer = _output_of(image, "client", "python3", "-c", _FETCH)
    if not answer.startswith("web-"):
        raise ClusterError(f"the Service answered {answer!r}, not a pod's name")
    say(f"the Service answered: {answer}")
