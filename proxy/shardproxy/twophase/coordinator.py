"""The coordinator of one cross-shard transaction, from the client's COMMIT to the end: sans-I/O.

The transaction is committed at the moment the decision shard's commit is durable, and not before: its COMMIT PREPARED, or with last
agent its COMMIT.  Invariants: step 3 is sent only when every other participant is prepared and every reader closed; once it was
sent, nothing is undone on another shard before the decision shard's abort is certain; PREPARE and last agent's COMMIT are sent
once; 42704 is never taken for success.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from shardproxy.twophase import messages as m
from shardproxy.twophase.gid import Gid
from shardproxy.twophase.messages import Outcome, Record


class Phase(Enum):
    """Where the transaction is; names follow docs/commit-protocol.md."""

    PREPARE = "record and prepare"
    CLOSE = "close the readers"
    DECIDE = "decide"
    CONFIRM = "confirm that the decision is replicated"
    ASK = "ask the decision shard"
    TOMBSTONE = "make sure that last agent's COMMIT can't get in any more"
    FENCE = "end the session in which it still may"
    FINISH = "finish"
    ABORT = "abort"
    HANDED_OVER = "left to recovery"
    DONE = "done"


class Part(Enum):
    """What is known of one participant's part."""

    OPEN = "an open transaction"
    FAILED = "failed, not yet rolled back"
    ENDED = "rolled back by the server"
    LOST = "its link was lost while preparing"
    PREPARED = "prepared"
    CHECKING = "its GID is gone, or its commit is not known to be replicated: looking at its record"
    MISSING = "neither GID nor record"
    COMPARING = "neither GID nor record: asking whether the decision still stands"
    COMMITTED = "committed"
    ABORTED = "rolled back"


@dataclass(frozen=True)
class Participant:
    """One shard on which the transaction may have written."""

    gid: Gid
    owner: str
    """The login role: owner of the prepared transaction and writer of the record."""
    part: Part = Part.OPEN
    attempts: int = 0


Step = tuple["Coordinator", tuple[m.CoordinatorCommand, ...]]

MAX_ABORT_ATTEMPTS = 3
"""After so many tries a part that must be rolled back is left to recovery."""

FENCE_AFTER = 3
"""So many questions whether last agent's COMMIT got in are asked before its session is ended."""


@dataclass(frozen=True)
class Coordinator:
    """The state of one commit; every step returns a new one and the commands to run in parallel."""

    decision: int
    participants: tuple[Participant, ...]
    readers: tuple[int, ...] = ()
    last_agent: bool = False
    """The decision shard is not prepared: it commits in step 3, and it alone knows whether it did."""
    phase: Phase = Phase.PREPARE
    waiting: frozenset[int] = frozenset()
    """Shards whose reply is outstanding in this phase."""
    reported: Outcome | None = None
    decided: bool = False
    """Step 3 was sent: from here on only a certain abort may undo anything."""
    closed: frozenset[int] = frozenset()
    failed: bool = False
    failed_over: bool = False
    """The decision shard answered on a later timeline than the transaction's."""
    attempts: int = 0

    def start(self) -> Step:
        """Step 1: record and prepare everywhere, in parallel; with last agent not on the decision shard."""
        shards = [each.gid.shard for each in self.participants if not (self.last_agent and each.gid.is_decision)]
        return replace(self, waiting=frozenset(shards)), tuple(m.Prepare(shard) for shard in shards)

    @property
    def finished(self) -> bool:
        """Nothing is left to do here."""
        return self.phase in (Phase.DONE, Phase.HANDED_OVER)

    def unfinished(self) -> frozenset[int]:
        """Shards on which the transaction may still be prepared."""
        return frozenset(
            each.gid.shard for each in self.participants if each.part not in (Part.COMMITTED, Part.ABORTED, Part.ENDED)
        )

    def step(self, reply: m.Reply) -> Step:
        """Take one reply."""
        if isinstance(reply, m.Overdue):
            return self._overdue()
        return {
            Phase.PREPARE: Coordinator._on_prepared,
            Phase.CLOSE: Coordinator._on_closed,
            Phase.DECIDE: Coordinator._on_decided,
            Phase.CONFIRM: Coordinator._on_confirmed,
            Phase.ASK: Coordinator._on_asked,
            Phase.TOMBSTONE: Coordinator._on_tombstone,
            Phase.FENCE: Coordinator._on_fenced,
            Phase.FINISH: Coordinator._on_finished,
            Phase.ABORT: Coordinator._on_aborted,
        }[self.phase](self, reply)

    # --- steps 1 and 2

    def _on_prepared(self, reply: m.Reply) -> Step:
        match reply:
            case m.Prepared(shard):
                state = self._set(shard, Part.PREPARED)
            case m.Refused(shard, is_open, prepared):
                part = Part.PREPARED if prepared else Part.FAILED if is_open else Part.ENDED
                state = replace(self._set(shard, part), failed=True)
            case m.Lost(shard):
                state = replace(self._set(shard, Part.LOST), failed=True)
            case _:
                raise _unexpected(self.phase, reply)
        state = replace(state, waiting=self.waiting - {shard})
        if state.waiting:
            return state, ()
        if state.failed:
            return state._abort()
        if not self.readers:
            return state._decide()
        closing = replace(state, phase=Phase.CLOSE, waiting=frozenset(self.readers))
        return closing, tuple(m.CloseReader(shard) for shard in self.readers)

    def _on_closed(self, reply: m.Reply) -> Step:
        shard, done = reply.shard, isinstance(reply, m.Done)
        closed = self.closed | {shard} if done else self.closed
        state = replace(self, waiting=self.waiting - {shard}, closed=closed, failed=self.failed or not done)
        if state.waiting:
            return state, ()
        return state._abort() if state.failed else state._decide()

    # --- step 3, on the decision shard alone

    def _decide(self) -> Step:
        one = self._participant(self.decision)
        state = replace(self, phase=Phase.DECIDE, decided=True)
        if self.last_agent:
            return state, (m.CommitLast(self.decision),)
        return state, (m.CommitPrepared(one.gid, one.owner, timeline=one.gid.timeline),)

    def _on_decided(self, reply: m.Reply) -> Step:
        match reply:
            case m.Done(durable=True):
                return self._finish()
            case m.Refused(shard, open=True):  # its block is still open: COMMIT never ran
                return self._set(shard, Part.FAILED)._abort()
            case _:
                return self._ask_later()

    def _on_confirmed(self, reply: m.Reply) -> Step:
        if isinstance(reply, m.Done) and reply.durable:
            return self._finish()
        return self._ask_later()

    def _ask_later(self) -> Step:
        """The first question goes out at once; later ones after a pause."""
        state = replace(self, phase=Phase.ASK, attempts=self.attempts + 1)
        if self.attempts == 0:
            return state, (m.Connect(self.decision),)
        return state, (m.Wait(self.decision, self.attempts),)

    def _on_asked(self, reply: m.Reply) -> Step:
        one = self._participant(self.decision)
        match reply:
            case m.Elapsed(shard):
                return self, (m.Connect(shard),)
            case m.Connected(_, timeline) if timeline < one.gid.timeline:
                return self._ask_later()
            case m.Connected(shard, timeline):
                return replace(self, failed_over=timeline > one.gid.timeline), (m.ReadGids(shard),)
            case m.GidsAre(_, gids) if any(gid == one.gid for gid, _ in gids):
                return self._hand_over() if self.failed_over or self.last_agent else self._decide()
            case m.GidsAre(shard):
                return self, (m.ReadRecord(shard),)
            case m.RecordIs(_, record, retired):
                return self._judge(one, record, retired)
            case _:
                return self._ask_later()

    def _judge(self, one: Participant, record: Record | None, retired: int) -> Step:
        """The GID was read first, the record after it, on one connection; a record counts only if it is known to be replicated."""
        if record is not None and record.outcome == "commit":
            if record.who != one.owner:
                return self._hand_over()
            return replace(self, phase=Phase.CONFIRM), (m.ConfirmDurable(self.decision),)
        if record is None and (self.failed_over or retired >= one.gid.epoch):
            return self._hand_over()
        if record is None and self.last_agent:
            command = m.WriteTombstone(self.decision, one.gid.txn, one.gid.epoch)
            return replace(self, phase=Phase.TOMBSTONE), (command,)
        return self._set(self.decision, Part.ABORTED)._abort()

    def _on_tombstone(self, reply: m.Reply) -> Step:
        """Last agent: its COMMIT may still be on its way, so only a tombstone that got in proves that it never will."""
        match reply:
            case m.Done(shard):
                return self._set(shard, Part.ABORTED)._abort()
            case m.Blocked(shard) if self.attempts >= FENCE_AFTER:
                one = self._participant(shard)
                return replace(self, phase=Phase.FENCE), (m.Fence(shard, one.gid.txn, one.gid.epoch, one.owner),)
            case _:
                return self._ask_later()

    def _on_fenced(self, _: m.Reply) -> Step:
        """Its COMMIT may have got in before its session ended (!)."""
        return self._ask_later()

    def _hand_over(self) -> Step:
        """Only recovery, which asks every member, can say: the client gets 08007, nothing is touched."""
        return replace(self, phase=Phase.HANDED_OVER)._report(Outcome.UNKNOWN)

    # --- step 4

    def _finish(self) -> Step:
        state = self._set(self.decision, Part.COMMITTED)
        rest = [each for each in state.participants if each.part is not Part.COMMITTED]
        state = replace(state, phase=Phase.FINISH, waiting=frozenset(each.gid.shard for each in rest))
        return state, tuple(m.CommitPrepared(each.gid, each.owner) for each in rest)

    def _on_finished(self, reply: m.Reply) -> Step:
        if reply.shard == self.decision:
            return self._on_compared(reply)
        one = self._participant(reply.shard)
        match reply:
            case m.Done(shard, durable=True):
                return self._set(shard, Part.COMMITTED)._end_if_done()
            case m.Done(shard) | m.Gone(shard):
                return self._set(shard, Part.CHECKING), (m.Connect(shard),)
            case m.Elapsed(shard) if one.part is Part.CHECKING:
                return self, (m.Connect(shard),)
            case m.Elapsed():
                return self, (m.CommitPrepared(one.gid, one.owner),)
            case m.Connected(shard):
                return self, (m.ReadGids(shard),)
            case m.GidsAre(shard, gids) if any(gid == one.gid for gid, _ in gids):
                return self._set(shard, Part.PREPARED), (m.CommitPrepared(one.gid, one.owner),)
            case m.GidsAre(shard):
                return self, (m.ReadRecord(shard),)
            case m.RecordIs(shard, record) if record is not None and record.outcome == "commit":
                return self, (m.ConfirmDurable(shard),)
            case m.RecordIs(shard):
                return self._set(shard, Part.MISSING)._compare()
            case _:
                return self._retry(one)

    def _compare(self) -> Step:
        """Read D's record after the missing ones were looked for: one question at a time."""
        if any(each.part is Part.COMPARING for each in self.participants):
            return self, ()
        state = self._move(Part.MISSING, Part.COMPARING)
        return (state, (m.Connect(self.decision),)) if state != self else self._end_if_done()

    def _on_compared(self, reply: m.Reply) -> Step:
        """A part that is gone without a record, while D's record still stands, was lost by its shard."""
        one = self._participant(self.decision)
        match reply:
            case m.Elapsed(shard):
                return self, (m.Connect(shard),)
            case m.Connected(shard):
                return self, (m.ReadGids(shard),)
            case m.GidsAre(shard):
                return self, (m.ReadRecord(shard),)
            case m.RecordIs(_, record):
                stands = record is not None and record.outcome == "commit"
                lost = [each.gid.shard for each in self.participants if each.part is Part.COMPARING and stands]
                state, commands = self._move(Part.COMPARING, Part.COMMITTED)._compare()
                return state, (*(m.ReportLoss(shard) for shard in lost), *commands)
            case _:
                return self._retry(one)

    def _move(self, old: Part, new: Part) -> Coordinator:
        moved = tuple(replace(each, part=new) if each.part is old else each for each in self.participants)
        return replace(self, participants=moved)

    def _end_if_done(self) -> Step:
        if any(each.part is not Part.COMMITTED for each in self.participants):
            return self, ()
        return replace(self, phase=Phase.DONE, waiting=frozenset())._report(Outcome.COMMITTED)

    # --- abort

    def _abort(self) -> Step:
        """Roll back whatever is or may be prepared, and readers that are still open."""
        commands: list[m.RollbackPrepared | m.Rollback] = []
        for each in self.participants:
            if each.part in (Part.PREPARED, Part.LOST):
                commands.append(m.RollbackPrepared(each.gid, each.owner))
            elif each.part in (Part.OPEN, Part.FAILED):
                commands.append(m.Rollback(each.gid.shard))
        commands.extend(m.Rollback(shard) for shard in self.readers if shard not in self.closed)
        state = replace(self, phase=Phase.ABORT, waiting=frozenset(command.shard for command in commands))
        return (state, tuple(commands)) if commands else state._end_abort()

    def _on_aborted(self, reply: m.Reply) -> Step:
        one = next((each for each in self.participants if each.gid.shard == reply.shard), None)
        match reply:
            case m.Elapsed() if one is not None:
                return self, (m.RollbackPrepared(one.gid, one.owner),)
            case m.Done(shard) | m.Gone(shard):
                state = self._set(shard, Part.ABORTED) if one is not None else self
                return replace(state, waiting=self.waiting - {shard})._end_abort()
            case _:
                if one is None or one.part in (Part.OPEN, Part.FAILED) or one.attempts >= MAX_ABORT_ATTEMPTS:
                    return replace(self, waiting=self.waiting - {reply.shard})._end_abort()
                return self._retry(one)

    def _end_abort(self) -> Step:
        if self.waiting:
            return self, ()
        return replace(self, phase=Phase.DONE)._report(Outcome.ABORTED)

    # --- common

    def _overdue(self) -> Step:
        """The client is answered now; the work goes on behind it."""
        match self.phase:
            case Phase.FINISH:
                return self._report(Outcome.COMMITTED)
            case Phase.ABORT:
                return self._report(Outcome.ABORTED)
            case Phase.DECIDE | Phase.ASK | Phase.CONFIRM | Phase.TOMBSTONE | Phase.FENCE:
                return self._report(Outcome.UNKNOWN)
            case _:
                return self, ()

    def _report(self, outcome: Outcome) -> Step:
        if self.reported is not None:
            return self, ()
        return replace(self, reported=outcome), (m.Report(outcome, self.unfinished()),)

    def _retry(self, one: Participant) -> Step:
        state = self._replace(replace(one, attempts=one.attempts + 1))
        return state, (m.Wait(one.gid.shard, one.attempts),)

    def _participant(self, shard: int) -> Participant:
        return next(each for each in self.participants if each.gid.shard == shard)

    def _set(self, shard: int, part: Part) -> Coordinator:
        return self._replace(replace(self._participant(shard), part=part))

    def _replace(self, one: Participant) -> Coordinator:
        shard = one.gid.shard
        return replace(self, participants=tuple(one if each.gid.shard == shard else each for each in self.participants))


def begin(
    *,
    cluster: str,
    txn: str,
    epoch: int,
    decision: int,
    timelines: Mapping[int, int],
    owners: Mapping[int, str],
    readers: tuple[int, ...] = (),
    last_agent: bool = False,
) -> Coordinator:
    """A coordinator for a client's COMMIT; `timelines` and `owners` name the participants, two or more.

    `timelines` are those of the very connections on which the parts ran (!); `epoch` is the decision shard's, as last read.
    """
    participants = tuple(
        Participant(Gid(cluster, txn, epoch, timelines[decision], timeline, decision, shard), owners[shard])
        for shard, timeline in sorted(timelines.items())
    )
    return Coordinator(decision=decision, participants=participants, readers=readers, last_agent=last_agent)


def choose_decision(txn: str, participants: frozenset[int]) -> int:
    """D: spread over the participants by the txn."""
    ordered = sorted(participants)
    return ordered[int(txn, 16) % len(ordered)]


def _unexpected(phase: Phase, reply: m.Reply) -> AssertionError:
    return AssertionError(f"coordinator: {reply} is no answer to anything asked in phase {phase.name}")
