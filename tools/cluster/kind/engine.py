"""The Docker that kind uses: this machine's if it answers, else a dockerd of our own.

Our own runs as root in network, mount and process namespaces of its own. Invariant: nothing of the machine's network, iptables,
sysctls or mounts changes, and killing its first process ends all its containers with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tools.cluster.kind.packages import ENGINE as ENGINE_PROGRAMS
from tools.cluster.kind.packages import require
from tools.cluster.kind.state import ENGINE, STATE, process_start, recall, remember
from tools.cluster.process import run, succeeds
from tools.cluster.say import ClusterError, say, step, tail

START_TIMEOUT = 60.0
"""Seconds until a dockerd must answer, and until it must be gone after SIGKILL."""

_PID_FILE = "engine.pid"
_SOCKET = f"unix://{ENGINE}/sock"
_ISOLATE = "unshare --net --mount --propagation private --pid --fork --kill-child --mount-proc".split()
# /run is private: a containerd of the machine's there would be used, and iptables locks a file there. tini reaps shims.
_INSIDE = 'ip link set lo up && mount -t tmpfs tmpfs /run && exec tini -- dockerd "$@"'


@dataclass(frozen=True)
class Engine:
    """A Docker that answers. `pid` is a process in the namespaces of our own, None for the machine's Docker."""

    pid: int | None

    @property
    def env(self) -> dict[str, str]:
        """What docker and kind need in their environment. The classic builder is the one that needs no plugin."""
        return {"DOCKER_HOST": _SOCKET, "DOCKER_BUILDKIT": "0"} if self.pid else {}

    def docker(self, *arguments: str | Path, timeout: float = 900.0) -> str:
        """Run the docker client."""
        return run("docker", *arguments, env=self.env, timeout=timeout)

    def has(self, image: str) -> bool:
        """Whether it holds this image."""
        return succeeds("docker", "image", "inspect", image, env=self.env)

    def import_image(self, archive: Path, image: str, changes: Sequence[str]) -> None:
        """Make an image of a packed root file system, once."""
        if self.has(image):
            return
        options = [word for change in changes for word in ("--change", change)]
        with (
            step(f"importing {image}", "about 10 s"),
            subprocess.Popen(["zstd", "-dcq", archive], stdout=subprocess.PIPE) as unpack,
        ):
            done = subprocess.run(
                ["docker", "import", *options, "-", image],
                stdin=unpack.stdout,
                capture_output=True,
                text=True,
                env=os.environ | self.env,
                check=False,
            )
        if done.returncode or unpack.returncode:
            raise ClusterError(f"docker import of {archive} failed: {tail(done.stderr)}")


def engine() -> Engine:
    """A Docker that answers; one of our own is started if need be."""
    if running := running_engine():
        return running
    if os.geteuid() != 0:
        raise ClusterError(
            "no Docker answers (`docker info`), and only root can start one of its own: start Docker, or run this as root"
        )
    return _start()


def running_engine() -> Engine | None:
    """A Docker that answers, or None; never starts one."""
    pid = recall(_PID_FILE)
    if pid is not None:
        return Engine(pid)
    return Engine(None) if succeeds("docker", "info") else None


def _start() -> Engine:
    require(ENGINE_PROGRAMS)
    shutil.rmtree(ENGINE, ignore_errors=True)
    ENGINE.mkdir(parents=True)
    ENGINE.chmod(0o711)
    runtime = shutil.copy(Path(__file__).parent / "runc-nores", ENGINE)
    options = [
        f"--data-root={ENGINE}/data",
        f"--exec-root={ENGINE}/exec",
        f"--pidfile={ENGINE}/pid",
        f"--host={_SOCKET}",
        f"--add-runtime=nores={runtime}",
        "--default-runtime=nores",
        "--storage-driver=overlay2",
        f"--cgroup-parent=/{STATE.name}",  # so that we know which control groups to remove
    ]
    with step("starting a Docker of our own, in namespaces of its own", "a few seconds"), (ENGINE / "log").open("wb") as log:
        process = subprocess.Popen(
            [*_ISOLATE, "sh", "-c", _INSIDE, "dockerd", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
        remember(_PID_FILE, process.pid)
        started = Engine(process.pid)
        deadline = time.monotonic() + START_TIMEOUT
        while not succeeds("docker", "version", env=started.env):
            if process.poll() is not None or time.monotonic() > deadline:
                message = tail((ENGINE / "log").read_text())
                stop()
                raise ClusterError(f"dockerd did not start: {message}")
            time.sleep(0.2)
    return started


def stop() -> None:
    """End our own engine with all that runs in it, and remove its data; the machine's Docker is left alone."""
    pid = recall(_PID_FILE)
    if pid is not None:
        say("ending the Docker of our own")
        started = process_start(pid)
        os.kill(pid, signal.SIGKILL)
        _until_gone(pid, started)
    run("rm", "-rf", STATE)


def _until_gone(pid: int, started: str) -> None:
    """Its namespaces' processes are dead once their control groups can be removed."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        with suppress(ChildProcessError):  # mostly another process of ours started it
            os.waitpid(pid, os.WNOHANG)
        for group in sorted(control_groups(), reverse=True):
            with suppress(OSError):  # still in use; tried again
                group.rmdir()
        if process_start(pid) != started and not control_groups():
            return
        time.sleep(0.1)
    raise ClusterError(f"the engine's processes are not gone {START_TIMEOUT:.0f} s after SIGKILL of process {pid}")


def control_groups() -> list[Path]:
    """Those of the engine's containers, in each hierarchy."""
    return list(Path("/sys/fs/cgroup").glob(f"**/{STATE.name}/**/"))
