"""A status with something in every field, and one with more than an object can hold."""

from __future__ import annotations

from dataclasses import replace

from shardoperator.models.conditions import ORDER, Condition
from shardoperator.models.observation import PreparedTransaction, Problem, ProxyObservation, RecoveryReport, ShardObservation
from shardoperator.models.status import Status
from shardproxy.twophase.evidence import TransactionClass

NOW = "2026-01-02T03:04:05Z"


def full(text: str = "why", count: int = 1) -> Status:
    """`text` wherever text is free, `count` times in each list."""
    shard = ShardObservation(
        "a", 0, reachable=True, message=text, version=180001, system_identifier=2**64 - 1, timeline=2**32 - 1,
        max_prepared_transactions=262143, problems=tuple(Problem("TooLow", text) for _ in range(count)),
    )  # fmt: skip
    stuck = PreparedTransaction(
        0, "g" * 199, "o" * 63, NOW, 900.0, "d" * 63, TransactionClass.IN_DOUBT, text, 7,
        tuple(text for _ in range(count)), tuple(text for _ in range(count)),
    )  # fmt: skip
    shards = (shard, ShardObservation("b", 1, reachable=False, reason="Timeout"))
    return Status(
        "shop",
        "default",
        3,
        "0123456789abcdef",
        tuple(Condition(kind, "Unknown", "Because", text, 3, NOW) for kind in ORDER),
        shards,
        RecoveryReport(tuple(stuck for _ in range(count))),
        ProxyObservation(2, 1, "f" * 16),
        frozenset({"a"}),
        "pgshepherd.io/cluster=shop",
    )


def oversized() -> Status:
    """64 shards of which each has much to say."""
    status = full("x" * 40_000, 200)
    return replace(status, shards=tuple(replace(status.shards[0], name=f"s{n}", number=n) for n in range(64)))
