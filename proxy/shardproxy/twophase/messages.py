"""What the two state machines say to their drivers, and what they are told.

A *command* asks for one exchange with one shard; the driver answers each with exactly one *reply* that names the same shard.
Invariant: a driver that can't tell what became of a command says `Lost`.  It never retries on its own, and never turns "could
not look" into an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from shardproxy.twophase.gid import Gid


class Outcome(Enum):
    """How a transaction ended, as far as its coordinator knows."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Record:
    """A row of pgshepherd.commit_record as read from one shard."""

    outcome: str
    who: str


# --- commands of the coordinator alone: on the connection that holds the client's transaction


@dataclass(frozen=True)
class Prepare:
    """Send `records.prepare_message`; answered by Prepared, Refused or Lost."""

    shard: int


@dataclass(frozen=True)
class CommitLast:
    """Send `records.prepare_message` with COMMIT in the place of PREPARE: step 3 with last agent; answered by Done, Refused or Lost.

    Sent once.  Refused with `open`: the transaction block has failed and is still open, so COMMIT never ran.  Refused without it
    proves nothing (!).
    """

    shard: int


@dataclass(frozen=True)
class CloseReader:
    """Send `records.CLOSE_READER`; answered by Done, Refused or Lost."""

    shard: int


@dataclass(frozen=True)
class Rollback:
    """Plain ROLLBACK of a transaction that was not prepared; answered by Done or Lost."""

    shard: int


@dataclass(frozen=True)
class Report:
    """Tell the client; said exactly once in a transaction's life."""

    outcome: Outcome
    unfinished: frozenset[int] = frozenset()
    """Shards on which the transaction may still hold its locks."""


@dataclass(frozen=True)
class ReportLoss:
    """A shard lost data that it had acknowledged: count, log, alert."""

    shard: int


@dataclass(frozen=True)
class Wait:
    """Answer with `Elapsed` after a pause; `attempt` counts from 0 and sets its length."""

    shard: int
    attempt: int


# --- commands of both


@dataclass(frozen=True)
class CommitPrepared:
    """COMMIT PREPARED, alone in its message; answered by Done, Gone, Failed or Lost.

    With `timeline`, only over a connection that has itself shown that timeline and the server's system_identifier (!);
    otherwise the driver answers Lost without sending.
    """

    gid: Gid
    owner: str
    timeline: int | None = None

    @property
    def shard(self) -> int:
        """Where it goes."""
        return self.gid.shard


@dataclass(frozen=True)
class RollbackPrepared:
    """ROLLBACK PREPARED, alone in its message; answered by Done, Gone, Failed or Lost."""

    gid: Gid
    owner: str

    @property
    def shard(self) -> int:
        """Where it goes."""
        return self.gid.shard


@dataclass(frozen=True)
class ConfirmDurable:
    """Send `records.CONFIRM_DURABLE`; answered by Done (durable or not) or Lost."""

    shard: int


@dataclass(frozen=True)
class Connect:
    """Open or reuse this pass's one checked connection to the shard; answered by Connected or Unreachable.

    Checked = not in recovery, identity row and system_identifier as on file, timeline not below the highest ever seen.
    """

    shard: int


@dataclass(frozen=True)
class ReadGids:
    """Which GIDs of this transaction are prepared there, on the connection of Connect; answered by GidsAre or Lost."""

    shard: int


@dataclass(frozen=True)
class ReadRecord:
    """`records.read_record` on the same connection as ReadGids, and after it (!); answered by RecordIs or Lost."""

    shard: int


@dataclass(frozen=True)
class WriteTombstone:
    """`records.tombstone` under a short lock_timeout; answered by Done, NotInserted, Blocked, Failed or Lost."""

    shard: int
    txn: str
    epoch: int


@dataclass(frozen=True)
class Fence:
    """The tombstone again, and while it waits a second session ends what it waits for; answered by Done, Blocked, Failed or Lost.

    Only a session of `owner` with an open transaction that has written this very record is ended (`records.fence`).  Done = nothing
    stands in the tombstone's way any more, and no word on how it ended: ask again (!).
    """

    shard: int
    txn: str
    epoch: int
    owner: str


# --- commands of recovery alone


@dataclass(frozen=True)
class WriteAudit:
    """Put a row into pgshepherd.audit and alert, before anything is done; answered by Done, Failed or Lost."""

    shard: int
    text: str


# --- replies


@dataclass(frozen=True)
class Prepared:
    """The last tag was PREPARE TRANSACTION, and nothing warned after the record (01000, 57P01) nor before (25P01)."""

    shard: int


@dataclass(frozen=True)
class Refused:
    """The shard said no, and its connection still works; `open` = a transaction block is still to be rolled back.

    `prepared` = it was prepared, but with a warning that makes the coordinator abort (01000: not replicated).
    """

    shard: int
    open: bool = False
    prepared: bool = False


@dataclass(frozen=True)
class Done:
    """It was done; not `durable` = a WARNING 01000 said that a synchronous standby may not have it."""

    shard: int
    durable: bool = True


@dataclass(frozen=True)
class Gone:
    """42704: no such GID. Infer nothing from it: look at the records."""

    shard: int


@dataclass(frozen=True)
class Failed:
    """An error that says what it is: 55000 busy, 42501 not the owner, ..."""

    shard: int
    sqlstate: str
    message: str = ""


@dataclass(frozen=True)
class Lost:
    """The link broke, timed out or could not be opened: it may or may not have been done."""

    shard: int
    reason: str = ""


@dataclass(frozen=True)
class Elapsed:
    """The pause of `Wait` is over."""

    shard: int


@dataclass(frozen=True)
class Overdue:
    """The client has waited long enough for this phase."""

    shard: int = -1


@dataclass(frozen=True)
class Connected:
    """A checked connection is open."""

    shard: int
    timeline: int


@dataclass(frozen=True)
class Unreachable:
    """No checked connection to this shard in this pass."""

    shard: int
    reason: str


@dataclass(frozen=True)
class GidsAre:
    """The prepared GIDs of this transaction, each with its owner."""

    shard: int
    gids: tuple[tuple[Gid, str], ...]


@dataclass(frozen=True)
class RecordIs:
    """The record of this transaction there, and the epoch up to which that shard's own records may be gone."""

    shard: int
    record: Record | None
    retired: int


@dataclass(frozen=True)
class NotInserted:
    """The tombstone was refused: a record is there, or the epoch is retired."""

    shard: int


@dataclass(frozen=True)
class Blocked:
    """55P03: an open transaction has written the record and not yet ended, or the table is locked."""

    shard: int


CoordinatorCommand = (
    Prepare
    | CommitLast
    | CloseReader
    | Rollback
    | Report
    | ReportLoss
    | Wait
    | CommitPrepared
    | RollbackPrepared
    | ConfirmDurable
    | Connect
    | ReadGids
    | ReadRecord
    | WriteTombstone
    | Fence
)
RecoveryCommand = (
    CommitPrepared | RollbackPrepared | ConfirmDurable | Connect | ReadGids | ReadRecord | WriteTombstone | Fence | WriteAudit
)
Reply = (
    Prepared
    | Refused
    | Done
    | Gone
    | Failed
    | Lost
    | Elapsed
    | Overdue
    | Connected
    | Unreachable
    | GidsAre
    | RecordIs
    | NotInserted
    | Blocked
)
