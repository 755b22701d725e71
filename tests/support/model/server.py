"""One PostgreSQL server as the commit protocol sees it: one transaction's part of it, durable or still open.

Every function here is atomic, because the server's own statement is (postgres-facts: COMMIT PREPARED makes the record visible before
the GID goes, and whoever reads GID first and record second can't tell that from one step).  The exception is step 1's message on the
decision shard, which has two steps: others can meet the record while it is inserted and not yet prepared.

A failover is a choice among `past`: the durable states that the server went through since the one that the standby surely has.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any, NamedTuple

from model.driver import judge_last, judge_prepare
from model.names import APP, EPOCH, FORGER, LAST_EPOCH, RECOVERY, TXN, D, gid_of
from shardproxy.twophase import cleanup_messages as c
from shardproxy.twophase import messages as m
from shardproxy.twophase.gid import Gid

EPOCHS_OF_GRACE = 1
"""Step 1's guard: a coordinator's epoch may be superseded so often."""

Command = m.Prepare | m.CommitLast | m.CloseReader | m.Rollback | m.ReportLoss | m.Wait | m.RecoveryCommand | c.Command
Reply = m.Reply | c.Reply


class Session(IntEnum):
    """The client's transaction on this server."""

    NONE = 0
    OPEN = 1
    FAILED = 2
    """A statement has failed: only a rollback is possible."""
    RECORDED = 3
    """Step 1's message is half done: the record is inserted, and locks its key."""


class Data(IntEnum):
    """What the transaction has written here."""

    NONE = 0
    WRITTEN = 1
    EMPTY = 2
    """Without the client's writes: a wrong transaction was prepared."""


class Row(IntEnum):
    """The row of this transaction in pgshepherd.commit_record."""

    NONE = 0
    COMMIT = 1
    TOMBSTONE = 2
    FORGED = 3


class Lost(IntFlag):
    """What failovers have forgotten here, although the server had it."""

    NOTHING = 0
    COMMIT = 1
    PART = 2
    """Neither prepared nor committed any more."""
    ROLLBACK = 4
    """Prepared again."""


class Durable(NamedTuple):
    """What survives a crash."""

    prepared: Data = Data.NONE
    committed: Data = Data.NONE
    row: Row = Row.NONE
    epoch: int = EPOCH
    retired: int = EPOCH - 1
    compared: int = 1


class Server(NamedTuple):
    """A server's state; `past[0]` is what a standby surely has, `past[-1]` is now."""

    timeline: int = 1
    session: Session = Session.OPEN
    past: tuple[Durable, ...] = (Durable(),)
    lost: Lost = Lost.NOTHING
    standby: bool = False
    """Whether a failover may still come: if not, nobody can tell what a standby lacks."""

    @property
    def now(self) -> Durable:
        """The present durable state."""
        return self.past[-1]

    def write(self, **changes: Any) -> Server:
        """One more durable step."""
        now = self.now._replace(**changes)
        return self._replace(past=(*self.past, now) if self.standby else (now,)) if now != self.now else self

    def replicated(self) -> Server:
        """The standbys have replayed everything."""
        return self._replace(past=self.past[-1:])

    def crashed(self) -> Server:
        """Restarted: open transactions are gone."""
        return self._replace(session=Session.NONE)

    def failovers(self) -> list[Server]:
        """Every standby that may take over; the new primary starts with no standby behind it."""
        return [self._promote(old) for old in dict.fromkeys(self.past)]

    def _promote(self, old: Durable) -> Server:
        lost, now = self.lost, self.now
        if now.committed and not old.committed:
            lost |= Lost.COMMIT
        if (now.committed or now.prepared) and not (old.committed or old.prepared):
            lost |= Lost.PART
        if old.prepared and not (now.committed or now.prepared):
            lost |= Lost.ROLLBACK
        return Server(self.timeline + 1, Session.NONE, (old,), lost)


Outcome = tuple[Reply | None, Server]
"""No reply: the command is half done."""


def execute(server: Server, command: Command, participants: tuple[int, ...]) -> Outcome:
    """What the server does with a command that has reached it."""
    number = command.shard
    match command:
        case m.Connect():
            return m.Connected(number, server.timeline), server
        case m.Prepare():
            return _prepare(server, number)
        case m.CommitLast():
            return _commit_last(server, number)
        case m.Rollback():
            return m.Done(number), server._replace(session=Session.NONE)
        case m.CommitPrepared(_, _, timeline) if timeline not in (None, server.timeline):
            return m.Lost(number), server
        case m.CommitPrepared() | m.RollbackPrepared():
            return _finish(server, number, commit=isinstance(command, m.CommitPrepared))
        case m.ReadGids():
            return m.GidsAre(number, ((gid_of(number), APP),) if server.now.prepared else ()), server
        case m.ReadRecord():
            return m.RecordIs(number, _record(server.now.row), server.now.retired), server
        case m.WriteTombstone(_, _, epoch):
            return _tombstone(server, number, epoch)
        case m.Fence(_, _, epoch):
            return _fence(server, number, epoch)
        case _:
            return _clean(server, command, participants)


def _record(row: Row) -> m.Record | None:
    match row:
        case Row.COMMIT:
            return m.Record("commit", APP)
        case Row.FORGED:
            return m.Record("commit", FORGER)
        case Row.TOMBSTONE:
            return m.Record("abort", RECOVERY)
        case _:
            return None


def _prepare(server: Server, number: int) -> Outcome:
    now = server.now
    if server.session is Session.NONE:
        return m.Lost(number), server
    if server.session is Session.RECORDED:
        return judge_prepare(number, "prepared"), server.write(prepared=Data.WRITTEN)._replace(session=Session.NONE)
    if server.session is Session.FAILED:
        return judge_prepare(number, "rolled back"), server._replace(session=Session.NONE)
    if number == D and now.epoch > EPOCH + EPOCHS_OF_GRACE:
        return judge_prepare(number, "superseded"), server._replace(session=Session.FAILED)
    if now.row:
        return judge_prepare(number, "tombstone"), server._replace(session=Session.FAILED)
    recorded = server._replace(session=Session.RECORDED)
    return (None, recorded) if number == D else _prepare(recorded, number)


def _commit_last(server: Server, number: int) -> Outcome:
    if server.session is Session.NONE:
        return m.Lost(number), server
    if server.session is Session.RECORDED:
        return judge_last(number, "committed"), server.write(committed=Data.WRITTEN, row=Row.COMMIT)._replace(
            session=Session.NONE
        )
    failed = server._replace(session=Session.FAILED)
    if server.session is Session.FAILED:
        return judge_last(number, "failed"), failed
    if server.now.epoch > EPOCH + EPOCHS_OF_GRACE:
        return judge_last(number, "superseded"), failed
    if server.now.row:
        return judge_last(number, "tombstone"), failed
    return None, server._replace(session=Session.RECORDED)


def _finish(server: Server, number: int, *, commit: bool) -> Outcome:
    prepared = server.now.prepared
    if not prepared:
        return m.Gone(number), server
    if commit:
        return m.Done(number), server.write(prepared=Data.NONE, committed=prepared, row=Row.COMMIT)
    return m.Done(number), server.write(prepared=Data.NONE)


def _tombstone(server: Server, number: int, epoch: int) -> Outcome:
    if server.now.retired >= epoch:
        return m.NotInserted(number), server
    if server.session is Session.RECORDED or server.now.prepared:
        return m.Blocked(number), server
    if server.now.row:
        return m.NotInserted(number), server
    return m.Done(number), server.write(row=Row.TOMBSTONE)


def _fence(server: Server, number: int, epoch: int) -> Outcome:
    """The session that has inserted the record is ended, and the tombstone gets in, unless something else refuses it."""
    if server.now.prepared:
        return m.Blocked(number), server
    ended = server._replace(session=Session.NONE) if server.session is Session.RECORDED else server
    return m.Done(number), _tombstone(ended, number, epoch)[1]


# --- clean-up


def _clean(server: Server, command: Command, participants: tuple[int, ...]) -> Outcome:
    number, now = command.shard, server.now
    match command:
        case c.ReadState():
            return c.StateIs(number, now.epoch, True, now.retired, now.compared), server
        case c.CheckOpenTransactions():
            return (c.Held(number, "open") if server.session else m.Done(number)), server
        case c.ReadRecords(_, _, above, up_to):
            found = now.row in (Row.COMMIT, Row.FORGED) and above < EPOCH <= up_to
            return c.RecordsAre(number, (c.CommitRecord(TXN, EPOCH, participants),) if found else ()), server
        case c.ReadPrepared():
            gids: tuple[Gid, ...] = (gid_of(number),) if now.prepared else ()
            return c.PreparedAre(number, gids), server
        case c.ReadOwn(_, txns):
            own = frozenset(txns) if now.row in (Row.COMMIT, Row.FORGED) else frozenset()
            return c.OwnAre(number, own, now.retired), server
        case c.CheckReplayed():
            return m.Done(number), server.replicated()
        case _:
            return _clean_up(server, command)


def _clean_up(server: Server, command: Command) -> Outcome:
    number, now = command.shard, server.now
    done = m.Done(number)
    match command:
        case c.SetCompared(_, timeline):
            return done, server.write(compared=timeline)
        case c.RaiseEpoch(_, epoch):
            return done, server.write(epoch=epoch + 1) if now.epoch == epoch < LAST_EPOCH else server
        case c.Retire(_, epoch, txns, timeline):
            if now.retired >= epoch or now.epoch < epoch + 2 or now.compared != timeline:
                return c.Held(number, "retired by somebody else"), server
            recorded = now.row in (Row.COMMIT, Row.FORGED) and epoch >= EPOCH
            if recorded and TXN not in txns:
                return c.Held(number, "recorded meanwhile"), server
            return done, server.write(retired=epoch, row=Row.NONE if recorded else now.row)
        case c.DeleteRecords(_, _, retired):
            gone = now.row in (Row.COMMIT, Row.FORGED) and retired >= EPOCH
            return done, server.write(row=Row.NONE) if gone else server
        case c.DeleteTombstones():
            gone = now.row is Row.TOMBSTONE and not server.session
            return done, server.write(row=Row.NONE) if gone else server
        case _:
            raise AssertionError(f"no such command: {command}")
