"""The transaction that a client has open: which shards take part, and what a shard that joins late must catch up on.

Invariant: a shard joins with the same BEGIN as the others, in the same message as its first statement, so nothing can ever run
there outside the transaction.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from shardproxy.errors import Refused
from shardproxy.query.commit import Link
from shardproxy.routing.schema import Schema


@dataclass
class Joined:
    """One shard's part of the transaction."""

    link: Link
    writes: bool = False
    begun: bool = False


@dataclass(frozen=True)
class Replay:
    """A statement that every shard of the transaction must have run."""

    text: str
    savepoint: str | None = None
    """Its name, if it set a savepoint."""
    is_session_setting: bool = False
    setting: str = ""
    """Name of what it sets, for a session setting; empty = RESET ALL."""


@dataclass
class Transaction:
    """From BEGIN, or from the first statement of an implicit transaction, to its end."""

    explicit: bool
    begin: str = "BEGIN"
    isolation: str | None = None
    joined: dict[int, Joined] = field(default_factory=dict)
    """By position, in the order in which they joined."""
    log: list[Replay] = field(default_factory=list)
    failed: bool = False
    has_ddl: bool = False
    schema: Schema | None = None
    """As its own DDL has made it; None until it is read."""
    started: float = field(default_factory=time.monotonic)

    @property
    def status(self) -> str:
        """As ReadyForQuery says it."""
        return "E" if self.failed else "T"

    def check_joins(self, positions: frozenset[int]) -> None:
        """Refuse a second shard where the isolation level promises one snapshot."""
        single = self.isolation in ("repeatable read", "serializable")
        if single and len(positions | self.joined.keys()) > 1:
            assert self.isolation is not None
            raise Refused(
                f"{self.isolation.upper()} over several shards",
                "there is no snapshot over all shards: use READ COMMITTED, or keep the transaction on one shard",
            )

    def prefix(self, position: int) -> list[str]:
        """What a shard must run before its first statement of this transaction."""
        if self.joined[position].begun:
            return []
        return [self.begin, *(entry.text for entry in self.log)]

    def roll_back_to(self, name: str) -> bool:
        """Forget what came after the savepoint; False if there is none of that name."""
        self.schema = None
        for index in range(len(self.log) - 1, -1, -1):
            if self.log[index].savepoint == name:
                del self.log[index + 1 :]
                return True
        return False

    def release(self, name: str) -> bool:
        """Forget the savepoint and those after it, but keep what was set; False if there is none of that name."""
        for index in range(len(self.log) - 1, -1, -1):
            if self.log[index].savepoint == name:
                self.log[index:] = [entry for entry in self.log[index:] if entry.savepoint is None]
                return True
        return False
