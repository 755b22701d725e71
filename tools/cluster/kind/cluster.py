"""A kind cluster by name: up, load an image, down. Callers get a kubeconfig and need not know which Docker it runs on."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from tools.cluster.binaries import obtain
from tools.cluster.cache import cache
from tools.cluster.kind import base_image, node_image
from tools.cluster.kind.engine import Engine, engine, running_engine, stop
from tools.cluster.kind.node_binaries import kind_program
from tools.cluster.kind.relay import start_relay, stop_relay
from tools.cluster.kind.state import STATE, kubeconfig
from tools.cluster.process import run
from tools.cluster.say import ClusterError, say, step

CREATE_TIMEOUT = 600.0
"""Seconds; kind itself takes half a minute on two idle cores."""


@contextmanager
def _alone() -> Iterator[None]:
    """One process at a time changes the engine and its clusters."""
    cache().mkdir(parents=True, exist_ok=True)
    with cache("kind.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _kind(docker: Engine, *arguments: str, stdin: str = "") -> str:
    program = shutil.which("kind") if docker.pid is None else None
    return run(program or kind_program(), *arguments, stdin=stdin, env=docker.env, timeout=CREATE_TIMEOUT)


def _clusters(docker: Engine) -> list[str]:
    return _kind(docker, "get", "clusters", "--quiet").split()


def names() -> list[str]:
    """The clusters that there are."""
    docker = running_engine()
    return _clusters(docker) if docker else []


def kubectl(name: str, *arguments: str, stdin: str = "") -> str:
    """kubectl as the cluster's admin."""
    environment = {"KUBECONFIG": str(kubeconfig(name)), "KUBECACHEDIR": str(STATE / f"{name}.kubectl")}
    return run(shutil.which("kubectl") or obtain() / "kubectl", *arguments, stdin=stdin, env=environment)


def up(name: str, workers: int) -> Path:
    """Create the cluster and wait until its nodes and its DNS work; the path of its kubeconfig. A failure leaves nothing."""
    with _alone():
        STATE.mkdir(parents=True, exist_ok=True)
        docker = engine()
        if name in _clusters(docker):
            raise ClusterError(f"there is a cluster {name} already: its kubeconfig is {kubeconfig(name)}")
        try:
            _create(docker, name, workers)
            _wait(name)
        except BaseException:
            _down(docker, name)
            raise
    return kubeconfig(name)


def _wait(name: str) -> None:
    """`kind create --wait` looks at the control plane only."""
    with step("waiting for nodes and DNS"):
        kubectl(name, "wait", "node", "--all", "--for=condition=Ready", "--timeout=300s")
        for namespace, deployment in (("kube-system", "coredns"), ("local-path-storage", "local-path-provisioner")):
            kubectl(name, "--namespace", namespace, "rollout", "status", f"deployment/{deployment}", "--timeout=300s")


def _create(docker: Engine, name: str, workers: int) -> None:
    roles = [{"role": "control-plane"}, *({"role": "worker"} for _ in range(workers))]
    config = yaml.safe_dump({"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": roles})
    options = ["create", "cluster", "--name", name, "--config", "-", "--wait", "300s", "--kubeconfig", str(kubeconfig(name))]
    doing = f"kind create cluster {name}: 1 control plane, {workers} workers"
    if docker.pid is None and not docker.has(node_image.IMAGE):
        try:
            with step(doing, "half a minute, and once the time to pull the node image"):
                _kind(docker, *options, stdin=config)
        except ClusterError as error:
            if "failed to pull image" not in error.output:
                raise
            say("kind's own node image cannot be pulled, so one is built here")
        else:
            return
    docker.import_image(node_image.node_archive(), node_image.IMAGE, node_image.CHANGES)
    with step(doing, "half a minute"):
        _kind(docker, *options, "--image", node_image.IMAGE, stdin=config)
    if docker.pid:
        _relay(name, docker.pid)


def _relay(name: str, pid: int) -> None:
    cluster = yaml.safe_load(kubeconfig(name).read_text())["clusters"][0]["cluster"]
    start_relay(name, urlsplit(cluster["server"]).port or 443, pid)


def load(name: str, *images: str) -> None:
    """Give all nodes images that the engine holds, so that pods need not pull them."""
    with step(f"loading {', '.join(images)} into the nodes", "a few seconds"):
        _kind(engine(), "load", "docker-image", "--name", name, *images)


def down(name: str) -> None:
    """Delete the cluster; an engine of our own goes with its last cluster, and with it everything else."""
    with _alone():
        _down(running_engine(), name)


def _down(docker: Engine | None, name: str) -> None:
    others = [other for other in _clusters(docker) if other != name] if docker else []
    with step(f"deleting the kind cluster {name}"):
        stop_relay(name)
        if docker and (others or docker.pid is None):
            _kind(docker, "delete", "cluster", "--name", name, "--kubeconfig", str(kubeconfig(name)))
        kubeconfig(name).unlink(missing_ok=True)
        shutil.rmtree(STATE / f"{name}.kubectl", ignore_errors=True)
        if not others:
            stop()


def base() -> str:
    """The name of the base image for Dockerfiles, put into the engine; nothing where the public one can be pulled."""
    docker = engine()
    if docker.pid is None and not docker.has(node_image.IMAGE):
        return ""
    docker.import_image(base_image.base_archive(), base_image.IMAGE, base_image.CHANGES)
    return base_image.IMAGE
