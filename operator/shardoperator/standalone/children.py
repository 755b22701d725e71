"""Child processes that must not outlive us."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """For a child between fork and exec: get this signal when the thread that started it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, number)
