"""What the tools tell a person: one line before each step that takes a while, and one after it with the time it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class ClusterError(Exception):
    """A cluster, or something it is made of, cannot be had. The message is one line: what failed, where, what to do."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output
        """All that the program said which failed."""


def say(message: str) -> None:
    """To stderr: stdout belongs to results, such as a kubeconfig's path."""
    print(f"== {message}", file=sys.stderr, flush=True)


@contextmanager
def step(name: str, expected: str = "") -> Iterator[None]:
    """Announce a step and how long it should take; report how long it took."""
    say(f"{name} ({expected})" if expected else name)
    begin = time.monotonic()
    yield
    say(f"{name}: done in {time.monotonic() - begin:.1f} s")


def tail(output: str) -> str:
    """The last line that says something, for a message of one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
