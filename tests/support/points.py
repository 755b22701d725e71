"""The messages of the commit protocol, found in the stream between proxy and shards: where faults are put."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shardoperator.standalone.demo.faults import commit_of
from shardoperator.standalone.demo.link import Direction, FaultLink, Trap, When, containing

Matches = Callable[[bytes], bool]
TO_SERVER, TO_CLIENT = Direction.TO_SERVER, Direction.TO_CLIENT


@dataclass(frozen=True)
class Point:
    """One message; `nth` counts over all links, `shard` narrows it to one."""

    name: str
    direction: Direction
    matches: Matches
    shard: int | None = None
    nth: int = 1

    def traps(self, links: Sequence[FaultLink], when: When, *, cut: bool = False) -> list[Trap]:
        """One trap on each link that the message may pass; the first that is hit was the one."""
        counted = _nth(self.matches, self.nth)
        return [
            link.trap(self.direction, counted, when, cut=cut) for number, link in enumerate(links) if self.shard in (None, number)
        ]

    def __str__(self) -> str:
        return self.name if self.shard is None else f"{self.name}-{self.shard}"


def _nth(matches: Matches, wanted: int) -> Matches:
    seen = 0

    def counted(frame: bytes) -> bool:
        nonlocal seen
        seen += matches(frame)
        return seen == wanted and matches(frame)

    return counted


def tag(text: str) -> Matches:
    """CommandComplete with exactly this tag."""
    return lambda frame: frame[:1] == b"C" and frame[5:] == text.encode() + b"\0"


def on_each(name: str, direction: Direction, matches: Matches, shards: int = 2) -> list[Point]:
    """The same message on each shard."""
    return [Point(name, direction, matches, shard) for shard in range(shards)]


UNDECIDED = [
    Point("begin", TO_SERVER, containing("BEGIN"), shard=0),
    Point("begun", TO_CLIENT, tag("BEGIN"), shard=0),
    Point("statement", TO_SERVER, containing("UPDATE accounts"), shard=0),
    Point("stated", TO_CLIENT, tag("UPDATE 1"), shard=0),
    *on_each("prepare", TO_SERVER, containing("PREPARE TRANSACTION", "Q")),
    *on_each("recorded", TO_CLIENT, tag("INSERT 0 1")),
    *on_each("prepared", TO_CLIENT, tag("PREPARE TRANSACTION")),
]
"""Messages at which nothing can have been decided yet."""

DECIDE = Point("decide", TO_SERVER, commit_of(decision=True))
DECIDED = Point("decided", TO_CLIENT, tag("COMMIT PREPARED"))
FINISH = Point("finish", TO_SERVER, commit_of(decision=False))
FINISHED = Point("finished", TO_CLIENT, tag("COMMIT PREPARED"), nth=2)
FINISH_LAST = Point("finish-last", TO_SERVER, commit_of(decision=False), nth=2)
FINISHED_LAST = Point("finished-last", TO_CLIENT, tag("COMMIT PREPARED"), nth=3)


def _last(frame: bytes) -> bool:
    return frame[:1] == b"Q" and b"INSERT INTO pgshepherd.commit_record" in frame and frame.endswith(b"; COMMIT\0")


LAST_AGENT = [
    Point("prepare", TO_SERVER, containing("PREPARE TRANSACTION", "Q")),
    Point("recorded", TO_CLIENT, tag("INSERT 0 1")),
    Point("prepared", TO_CLIENT, tag("PREPARE TRANSACTION")),
    Point("decide", TO_SERVER, _last),
    Point("recorded-last", TO_CLIENT, tag("INSERT 0 1"), nth=2),
    Point("decided", TO_CLIENT, tag("COMMIT")),
    FINISH,
    Point("finished", TO_CLIENT, tag("COMMIT PREPARED")),
]
"""The messages of a commit over two shards with last agent, in their order."""

READER_CLOSES = Point("close-reader", TO_SERVER, containing("pg_current_xact_id_if_assigned", "Q"))
READER_CLOSED = Point("closed-reader", TO_CLIENT, tag("COMMIT"))

ROLL_BACK = Point("roll-back", TO_SERVER, containing("ROLLBACK PREPARED", "Q"))
ROLLED_BACK = Point("rolled-back", TO_CLIENT, tag("ROLLBACK PREPARED"))


def decided_after(point: Point, when: When) -> bool:
    """Whether the decision shard has got its COMMIT PREPARED, once everything that was sent has arrived."""
    if point.name in ("decided", "finish", "finished", "finish-last", "finished-last"):
        return True
    return point.name == "decide" and when is When.AFTER


_SENT = re.compile(rb"(COMMIT|ROLLBACK) PREPARED|PREPARE TRANSACTION|pg_current_xact_id_if_assigned|\bBEGIN\b|UPDATE|INSERT")
_INSIDE = frozenset({"SAVEPOINT", "RELEASE", "SET", "SET CONSTRAINTS", "SELECT 1"})


def is_protocol(direction: Direction, frame: bytes) -> bool:
    """A message that must have a point: what is sent for the transaction, and each answer but those before the record."""
    if direction is TO_SERVER:
        return frame[:1] in b"QP" and _SENT.search(frame) is not None
    return frame[:1] == b"C" and frame[5:-1].decode() not in _INSIDE
