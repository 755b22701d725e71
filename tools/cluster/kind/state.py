"""Where what outlives one command is kept: kubeconfigs, and the engine of our own with its images and containers."""

from __future__ import annotations

import os
from pathlib import Path

STATE = Path("/var/tmp", f"pgshepherd-kind-{os.getuid()}")  # not /tmp, which may be memory: an engine's data are gigabytes
ENGINE = STATE / "engine"


def kubeconfig(cluster: str) -> Path:
    """The admin's kubeconfig of a cluster."""
    return STATE / f"{cluster}.kubeconfig"


def process_start(pid: int) -> str:
    """When a process started, in the kernel's ticks, so that a reused pid is not taken for it; nothing if there is no process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def remember(name: str, pid: int) -> None:
    """Write down a process that goes on when this one ends."""
    (STATE / name).write_text(f"{pid} {process_start(pid)}")


def recall(name: str) -> int | None:
    """The pid of a remembered process, if that very process still runs."""
    try:
        pid, _, started = (STATE / name).read_text().partition(" ")
    except FileNotFoundError:
        return None
    return int(pid) if started and process_start(int(pid)) == started else None
