"""What the clean-up of one decision shard asks its driver, and what it is told.

Invariant: all questions to the decision shard go over the one connection of `Connect`; one that breaks is answered Lost, and the pass
is over.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardproxy.twophase.gid import Gid
from shardproxy.twophase.messages import Connect, Connected, Done, Lost, Unreachable


@dataclass(frozen=True)
class CommitRecord:
    """A row of outcome commit."""

    txn: str
    epoch: int
    participants: tuple[int, ...]


# --- commands


@dataclass(frozen=True)
class ReadState:
    """The decision shard's identity row; answered by StateIs or Lost."""

    shard: int


@dataclass(frozen=True)
class CheckOpenTransactions:
    """Has a client transaction been open since before the current epoch?  What can't be seen counts as open.

    Answered by Done (none) or Held.
    """

    shard: int


@dataclass(frozen=True)
class ReadRecords:
    """The shard's own commit records of transactions that `decision` decided, with an epoch in (above, up_to].

    Answered by RecordsAre or Lost.
    """

    shard: int
    decision: int
    above: int
    up_to: int


@dataclass(frozen=True)
class ReadPrepared:
    """Every GID of ours that is prepared there; answered by PreparedAre or Lost."""

    shard: int


@dataclass(frozen=True)
class ReadOwn:
    """Which of these transactions have a commit record of the shard's own; after ReadPrepared (!).  Answered by OwnAre or Lost."""

    shard: int
    txns: tuple[str, ...]


@dataclass(frozen=True)
class CheckReplayed:
    """Have the connected standbys replayed what the shard had written when it was asked last?

    Answered by Done (or they can't be seen) or Held.
    """

    shard: int


@dataclass(frozen=True)
class WriteLoss:
    """An audit row about data that a shard has lost; answered by Done or Lost."""

    shard: int
    txn: str
    text: str


@dataclass(frozen=True)
class SetCompared:
    """The shard's records were compared with the others' after its timeline rose; answered by Done or Lost."""

    shard: int
    timeline: int


@dataclass(frozen=True)
class Retire:
    """Raise `retired` and delete exactly these records, in one transaction; answered by Done, Held (0 rows: nothing done) or Lost."""

    shard: int
    epoch: int
    txns: tuple[str, ...]
    timeline: int


@dataclass(frozen=True)
class RaiseEpoch:
    """From this epoch to the next, if it has lasted for the retention; answered by Done or Lost."""

    shard: int
    epoch: int


@dataclass(frozen=True)
class DeleteRecords:
    """The shard's own commit records that name `decision` with an epoch up to `retired`; answered by Done or Lost."""

    shard: int
    decision: int
    retired: int


@dataclass(frozen=True)
class DeleteTombstones:
    """Those older than every open client transaction on the shard; answered by Done or Lost."""

    shard: int


# --- replies


@dataclass(frozen=True)
class StateIs:
    """The identity row; `lasted` = the epoch is older than the retention, by the shard's own clock."""

    shard: int
    epoch: int
    lasted: bool
    retired: int
    compared_timeline: int


@dataclass(frozen=True)
class Held:
    """It must wait, and why."""

    shard: int
    reason: str


@dataclass(frozen=True)
class RecordsAre:
    """What ReadRecords found."""

    shard: int
    records: tuple[CommitRecord, ...]


@dataclass(frozen=True)
class PreparedAre:
    """What ReadPrepared found."""

    shard: int
    gids: tuple[Gid, ...]


@dataclass(frozen=True)
class OwnAre:
    """Those of the asked-for transactions that have a commit record; with `retired` as it was in the same statement."""

    shard: int
    txns: frozenset[str]
    retired: int


Command = (
    Connect
    | ReadState
    | CheckOpenTransactions
    | ReadRecords
    | ReadPrepared
    | ReadOwn
    | CheckReplayed
    | WriteLoss
    | SetCompared
    | Retire
    | RaiseEpoch
    | DeleteRecords
    | DeleteTombstones
)
Reply = Connected | Unreachable | Lost | Done | StateIs | Held | RecordsAre | PreparedAre | OwnAre
