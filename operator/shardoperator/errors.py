"""All exceptions of the operator; every message says what is wrong, where, and what to do, and holds no secret.

ShardoperatorError
  ManifestError       a manifest can't be read or is invalid
  ShardError          a shard can't be used; `reason` is the condition's reason
  StandaloneError     something on this machine does not work: a server, a child process, a port
  KubernetesError     the Kubernetes API refused a request, or did not answer
"""

from __future__ import annotations


class ShardoperatorError(Exception):
    """Base of every error that the operator raises on purpose."""


class ManifestError(ShardoperatorError):
    """A manifest can't be read or is invalid: each line of the message names path, value and what is allowed."""


class ShardError(ShardoperatorError):
    """A shard can't be used."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """A reason of the condition ShardsReachable or TwoPhaseReady."""


class StandaloneError(ShardoperatorError):
    """Something on this machine does not work as it must."""


class KubernetesError(ShardoperatorError):
    """The Kubernetes API refused a request, did not answer, or could not be found."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; 0 = no answer."""
