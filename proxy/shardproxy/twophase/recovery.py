"""Recovery of one transaction whose GIDs were found prepared: asks, judges by evidence, acts.

Needs no coordinator and no clock.  Invariant: nothing is committed or rolled back but on proof: a commit record that counts, a
tombstone, our own ROLLBACK PREPARED of the decision shard's part, or a tombstone of our own that got in.  Whatever goes wrong on
the way ends this pass in a verdict without an action; the next pass reads everything again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from shardproxy.twophase import messages as m
from shardproxy.twophase.evidence import Judgement, Next, ShardView, TransactionClass, Verdict, judge
from shardproxy.twophase.gid import Gid

BUSY = "55000"
"""On COMMIT and ROLLBACK PREPARED: somebody else is at it."""

MAX_ROUNDS = 5
"""How often one pass asks again after it lost a race; more means that somebody else is at it."""


class Phase(Enum):
    """What the next replies are about."""

    ASK_DECISION = "ask the decision shard"
    ASK_MEMBERS = "ask all other members"
    AUDIT = "announce an abort after a failover"
    WIN = "win the right to abort on the decision shard"
    FENCE = "end the open transaction that keeps the tombstone waiting"
    CONFIRM = "confirm that the commit record is replicated"
    ACT = "commit or roll back what is still prepared"
    LAST = "roll back the decision shard's part, last"
    DONE = "done"


Step = tuple["Resolver", tuple[m.RecoveryCommand, ...]]


@dataclass(frozen=True)
class Resolver:
    """The state of resolving one transaction in one pass; every step returns a new one."""

    gid: Gid
    """Any GID of the transaction: all of them name the same decision shard, epoch and decision timeline."""
    members: frozenset[int]
    """The numbers of all shards ever adopted; one without a connection counts as not reached."""
    seen: tuple[tuple[Gid, str], ...]
    """The GIDs that the scan found, with their owners: a hint, read again before anything is done."""
    read_only: bool = False
    """Stop before the first write and say what would be done."""
    fence: bool = False
    """The tombstone has waited for longer than the grace period: whose transaction keeps it waiting is frozen, or gone."""
    phase: Phase = Phase.ASK_DECISION
    views: tuple[ShardView, ...] = ()
    waiting: frozenset[int] = frozenset()
    rounds: int = 0
    judgement: Judgement | None = None
    gone: bool = False
    """A part was resolved by somebody else: perhaps committed, so its record must be read before anything is concluded (!)."""
    acted: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    verdict: Verdict | None = None

    def start(self) -> Step:
        """Begin, or begin again: the decision shard is asked before everybody else."""
        state = replace(self, phase=Phase.ASK_DECISION, views=(), gone=False, waiting=frozenset({self.gid.decision_shard}))
        return state, (m.Connect(self.gid.decision_shard),)

    def step(self, reply: m.Reply) -> Step:
        """Take one reply; the commands are to be run in parallel."""
        if self.phase in (Phase.ASK_DECISION, Phase.ASK_MEMBERS):
            return self._ask(reply)
        handler = {
            Phase.AUDIT: Resolver._audited,
            Phase.WIN: Resolver._won,
            Phase.FENCE: Resolver._fenced,
            Phase.CONFIRM: Resolver._confirmed,
            Phase.ACT: Resolver._acted,
            Phase.LAST: Resolver._acted,
        }[self.phase]
        return handler(self, reply)

    # --- asking: on each shard the GID first, then the record, over one connection (!)

    def _ask(self, reply: m.Reply) -> Step:
        match reply:
            case m.Connected(shard, timeline):
                return self._with(ShardView(shard, reached=False, timeline=timeline)), (m.ReadGids(shard),)
            case m.GidsAre(shard, gids):
                own = tuple(part for part in gids if part[0].transaction == self.gid.transaction)
                return self._with(replace(self._view(shard), gids=own)), (m.ReadRecord(shard),)
            case m.RecordIs(shard, record, retired):
                view = replace(self._view(shard), record=record, retired=retired, reached=True)
                return self._with(view)._asked(shard)
            case m.Unreachable(shard, reason) | m.Lost(shard, reason):
                return self._with(ShardView(shard, reached=False, reason=reason))._asked(shard)
            case _:
                raise _unexpected(self.phase, reply)

    def _asked(self, shard: int) -> Step:
        state = replace(self, waiting=self.waiting - {shard})
        if state.waiting:
            return state, ()
        others = self.members - {self.gid.decision_shard}
        if self.phase is Phase.ASK_DECISION and others:
            asked = replace(state, phase=Phase.ASK_MEMBERS, waiting=others)
            return asked, tuple(m.Connect(number) for number in sorted(others))
        return state._judge()

    def _judge(self) -> Step:
        judgement = judge(self.gid, self.members, self.views, self.seen)
        state = replace(self, judgement=judgement)
        if judgement.next is Next.NOTHING or self.read_only:
            return state._end(judgement.verdict)
        if judgement.audit:
            return replace(state, phase=Phase.AUDIT), (m.WriteAudit(self.gid.decision_shard, judgement.audit),)
        return state._proceed(judgement)

    def _proceed(self, judgement: Judgement) -> Step:
        decision = self.gid.decision_shard
        match judgement.next:
            case Next.COMMIT:
                source = judgement.source if judgement.source is not None else decision
                return replace(self, phase=Phase.CONFIRM), (m.ConfirmDurable(source),)
            case Next.WIN_ROLLBACK:
                gid, owner = self._decision_part()
                return replace(self, phase=Phase.WIN), (m.RollbackPrepared(gid, owner),)
            case Next.WIN_TOMBSTONE:
                return replace(self, phase=Phase.WIN), (m.WriteTombstone(decision, self.gid.txn, self.gid.epoch),)
            case _:
                return self._act()

    # --- writing

    def _audited(self, reply: m.Reply) -> Step:
        assert self.judgement is not None
        if isinstance(reply, m.Done):
            return self._proceed(self.judgement)
        return self._end(self._doubt(f"the audit row could not be written on shard {reply.shard}: {_say(reply)}"))

    def _won(self, reply: m.Reply) -> Step:
        match reply:
            case m.Done(shard):
                how = "rolled back on the decision shard" if self._has_decision_part() else "tombstone written"
                state = replace(self, acted=(*self.acted, f"shard {shard}: {how}"))
                return state._without(shard)._act()
            case m.Blocked(shard) if self.fence:
                owner = self.seen[0][1]
                return replace(self, phase=Phase.FENCE), (m.Fence(shard, self.gid.txn, self.gid.epoch, owner),)
            case m.Blocked():
                return self._wait("its coordinator has written the record on the decision shard and is still at work")
            case m.Lost():
                return self._end(self._doubt(f"decision shard: {_say(reply)}"))
            case m.Failed(_, sqlstate) if sqlstate != BUSY or self.rounds + 1 >= MAX_ROUNDS:
                return self._end(self._doubt(f"decision shard: {_say(reply)}"))
            case _:
                return self._again()

    def _fenced(self, reply: m.Reply) -> Step:
        """Its COMMIT may have got in, so everything is asked again (!)."""
        if isinstance(reply, m.Done):
            return self._again()
        if isinstance(reply, m.Blocked):
            return self._wait(f"what the tombstone waits for on the decision shard is no open transaction of {self.seen[0][1]!r}")
        return self._wait(f"the coordinator's session on the decision shard could not be ended: {_say(reply)}")

    def _wait(self, reason: str) -> Step:
        return self._end(replace(self._doubt(reason), waits=True))

    def _confirmed(self, reply: m.Reply) -> Step:
        if isinstance(reply, m.Done) and reply.durable:
            return self._act()
        return self._end(self._doubt(f"the commit record on shard {reply.shard} is not yet known to be replicated"))

    def _act(self) -> Step:
        assert self.judgement is not None
        parts = self._parts()
        if not parts and self.judgement.next is Next.ROLL_BACK_DECISION_LAST:
            return self._roll_back_decision()
        if not parts:
            return self._end(self.judgement.verdict)
        if self.judgement.next is Next.COMMIT:
            commands: tuple[m.RecoveryCommand, ...] = tuple(m.CommitPrepared(gid, owner) for gid, owner in parts)
        else:
            commands = tuple(m.RollbackPrepared(gid, owner) for gid, owner in parts)
        return replace(self, phase=Phase.ACT, waiting=frozenset(gid.shard for gid, _ in parts)), commands

    def _acted(self, reply: m.Reply) -> Step:
        assert self.judgement is not None
        verb = "committed" if self.judgement.next is Next.COMMIT else "rolled back"
        state = replace(self, waiting=self.waiting - {reply.shard})
        if isinstance(reply, m.Done):
            state = replace(state, acted=(*state.acted, f"shard {reply.shard}: {verb}"))
        elif isinstance(reply, m.Gone):
            state = replace(state, gone=True, acted=(*state.acted, f"shard {reply.shard}: resolved by somebody else"))
        else:
            state = replace(state, failures=(*state.failures, f"shard {reply.shard}: {_say(reply)}"))
        if state.waiting:
            return state, ()
        if self.phase is Phase.ACT and self.judgement.next is Next.ROLL_BACK_DECISION_LAST and not state.failures:
            return state._again() if state.gone else state._roll_back_decision()
        return state._end(self.judgement.verdict)

    def _roll_back_decision(self) -> Step:
        gid, owner = self._decision_part()
        return replace(self, phase=Phase.LAST, waiting=frozenset({gid.shard})), (m.RollbackPrepared(gid, owner),)

    def _again(self) -> Step:
        if self.rounds + 1 >= MAX_ROUNDS:
            return self._end(self._doubt("somebody else is resolving it: asked five times, lost the race each time"))
        return replace(self, rounds=self.rounds + 1).start()

    def _end(self, verdict: Verdict) -> Step:
        final = replace(verdict, acted=self.acted, failures=self.failures)
        return replace(self, phase=Phase.DONE, waiting=frozenset(), verdict=final), ()

    # --- small views of the state

    def _doubt(self, reason: str) -> Verdict:
        evidence = self.judgement.verdict.evidence if self.judgement else ()
        return Verdict(TransactionClass.IN_DOUBT, reason, evidence)

    def _view(self, shard: int) -> ShardView:
        return next(view for view in self.views if view.shard == shard)

    def _with(self, view: ShardView) -> Resolver:
        others = (other for other in self.views if other.shard != view.shard)
        return replace(self, views=tuple(sorted((*others, view), key=lambda each: each.shard)))

    def _without(self, shard: int) -> Resolver:
        views = tuple(replace(view, gids=()) if view.shard == shard else view for view in self.views)
        return replace(self, views=views)

    def _decision_part(self) -> tuple[Gid, str]:
        return self._view(self.gid.decision_shard).gids[0]

    def _has_decision_part(self) -> bool:
        return bool(self._view(self.gid.decision_shard).gids)

    def _parts(self) -> list[tuple[Gid, str]]:
        assert self.judgement is not None
        allowed: Iterable[tuple[Gid, str]] = (part for view in self.views if view.reached for part in view.gids)
        parts = [part for part in allowed if part[0].shard not in self.judgement.leave]
        if self.judgement.next is Next.COMMIT:
            return [part for part in parts if part[1] == self.judgement.owner]
        if self.judgement.next is Next.ROLL_BACK_DECISION_LAST:
            return [part for part in parts if not part[0].is_decision]
        return parts


def _say(reply: m.Reply) -> str:
    match reply:
        case m.Failed(_, sqlstate, message):
            return f"{sqlstate} {message}".strip()
        case m.Lost(_, reason):
            return f"the link was lost ({reason})" if reason else "the link was lost"
        case _:
            return type(reply).__name__.lower()


def _unexpected(phase: Phase, reply: m.Reply) -> AssertionError:
    return AssertionError(f"recovery: {reply} is no answer to anything asked in phase {phase.name}")
