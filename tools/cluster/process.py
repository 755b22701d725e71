"""Other programs, run to their end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tools.cluster.say import ClusterError, tail


def run(
    *command: str | Path,
    stdin: str = "",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 900.0,
) -> str:
    """What the program wrote to stdout; its last line on stderr is the message if it fails. `env` is added to ours."""
    words = [str(word) for word in command]
    environment = os.environ | (env or {})
    try:
        done = subprocess.run(
            words,
            input=stdin,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise ClusterError(f"{words[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{' '.join(words[:3])} is not done after {timeout:.0f} s") from None
    if done.returncode:
        raise ClusterError(f"{' '.join(words[:3])} failed: {tail(done.stderr or done.stdout)}", done.stderr)
    return done.stdout


def succeeds(*command: str | Path, env: Mapping[str, str] | None = None, timeout: float = 60.0) -> bool:
    """Whether the program exists and exits 0."""
    try:
        run(*command, env=env, timeout=timeout)
    except ClusterError:
        return False
    return True
