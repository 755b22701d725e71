"""Judging what the shards showed about one transaction: pure, and the only place where recovery decides.

Invariant: `judge` says COMMIT only where a commit record counts, and an abort only where the protocol proves that no commit can
ever happen.  All else is a doubt, with its reason in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from shardproxy.twophase.gid import Gid
from shardproxy.twophase.messages import Record


class TransactionClass(Enum):
    """What a prepared transaction is; the same words in metrics, status and CLI."""

    LIVE = "live"
    COMMITTED = "committed"
    ABORTED = "aborted"
    IN_DOUBT = "in_doubt"
    RESURRECTED = "resurrected"
    UNREACHABLE = "unreachable"
    FOREIGN = "foreign"


class Next(Enum):
    """What proof there is, or what has to be won first."""

    COMMIT = "commit"
    ROLL_BACK = "roll back: the abort is proven"
    ROLL_BACK_DECISION_LAST = "roll back, the decision shard's part last"
    WIN_ROLLBACK = "roll back the decision shard's part: exactly one of commit and rollback wins"
    WIN_TOMBSTONE = "write a tombstone on the decision shard"
    NOTHING = "do nothing"


@dataclass(frozen=True)
class ShardView:
    """What one shard showed in this pass: the GIDs first, then record and `retired`, over one connection."""

    shard: int
    reached: bool = True
    timeline: int = 0
    gids: tuple[tuple[Gid, str], ...] = ()
    record: Record | None = None
    retired: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """The class of a transaction, why, what each shard showed, and what was done."""

    transaction_class: TransactionClass
    reason: str
    evidence: tuple[str, ...]
    acted: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    loss: str = ""
    """What may have been lost: to be alerted."""
    waits: bool = False
    """The tombstone waits for an open transaction: if that outlasts the grace period, it is to be fenced."""


@dataclass(frozen=True)
class Judgement:
    """The next step, and the verdict if it succeeds."""

    next: Next
    verdict: Verdict
    source: int | None = None
    """The shard whose commit record was the proof."""
    owner: str = ""
    """Who wrote it: only this role's parts are committed by it."""
    audit: str = ""
    """To be written and alerted before anything is done."""
    leave: frozenset[int] = frozenset()
    """Shards whose part must not be touched in this pass."""


def judge(gid: Gid, members: frozenset[int], views: Sequence[ShardView], seen: Sequence[tuple[Gid, str]]) -> Judgement:
    """Steps 1 to 3 of docs/commit-protocol.md, Recovery.

    `views` holds one entry for each member that was asked, the decision shard before all others; `seen` is what the scan found.
    """
    shown = {view.shard: view for view in views}
    case = _Case(gid, members, shown, tuple(seen))
    return case.by_record() or case.by_absence()


@dataclass(frozen=True)
class _Case:
    gid: Gid
    members: frozenset[int]
    shown: dict[int, ShardView]
    seen: tuple[tuple[Gid, str], ...]

    def by_record(self) -> Judgement | None:
        """A commit record that counts, anywhere; a tombstone on the decision shard; a record that somebody else wrote."""
        forged: list[str] = []
        for number in self._decision_first():
            record = self.shown[number].record
            if record is None:
                continue
            if record.outcome == "abort":
                if number == self.gid.decision_shard:
                    return self._judgement(Next.ROLL_BACK, TransactionClass.ABORTED, f"tombstone on shard {number}")
                continue
            if record.who in self._owners():
                why = f"commit record on shard {number}"
                return self._judgement(Next.COMMIT, TransactionClass.COMMITTED, why, source=number, owner=record.who)
            forged.append(f"shard {number} has a commit record written by {record.who!r}, who does not own the transaction")
        return self._nothing(TransactionClass.IN_DOUBT, "; ".join(forged)) if forged else None

    def by_absence(self) -> Judgement:
        """Nobody shows evidence: what that proves depends on epochs, timelines and on who was reached."""
        gid, decision = self.gid, self.shown.get(self.gid.decision_shard)
        if decision is None or not decision.reached:
            why = decision.reason if decision else "no connection to it is configured"
            return self._nothing(
                TransactionClass.UNREACHABLE, f"the decision shard {gid.decision_shard} could not be asked: {why}"
            )
        rose = decision.timeline > gid.decision_timeline
        if decision.timeline < gid.decision_timeline:
            return self._nothing(
                TransactionClass.UNREACHABLE,
                f"shard {gid.decision_shard} answers on timeline {decision.timeline:x}, older than the transaction's: "
                "an old primary",
            )
        if rose and (missing := self._not_reached()):
            return self._nothing(
                TransactionClass.UNREACHABLE,
                f"shard {gid.decision_shard} has failed over, so every member must be asked; not reached: {missing}",
            )
        if decision.retired >= gid.epoch and not decision.gids:
            return self._retired()
        return self._abort(decision, rose=rose)

    def _retired(self) -> Judgement:
        """Records of this epoch may be gone: only a part that has never left its server is surely a late PREPARE (!)."""
        leave = frozenset(part.shard for part, _ in self._parts() if self.shown[part.shard].timeline != part.timeline)
        if leave:
            return self._judgement(
                Next.ROLL_BACK,
                TransactionClass.RESURRECTED,
                f"epoch {self.gid.epoch:x} is retired and shards {_list(leave)} failed over since: it was perhaps committed once",
                leave=leave,
            )
        why = f"epoch {self.gid.epoch:x} is retired and its shard never failed over: a PREPARE that came late"
        return self._judgement(Next.ROLL_BACK, TransactionClass.ABORTED, why)

    def _abort(self, decision: ShardView, *, rose: bool) -> Judgement:
        audit = ""
        if rose:
            audit = f"aborted after a failover of shard {decision.shard}: an acknowledged commit may be lost"
        if decision.gids and rose:
            step, why = Next.ROLL_BACK_DECISION_LAST, "no member shows a commit record, after a failover of the decision shard"
        elif decision.gids:
            step, why = Next.WIN_ROLLBACK, f"not decided: still prepared on its decision shard {decision.shard}"
        else:
            step, why = Next.WIN_TOMBSTONE, f"not decided: shard {decision.shard} shows neither part nor record"
        return self._judgement(step, TransactionClass.ABORTED, why, audit=audit)

    # --- what was shown, in words

    def evidence(self) -> tuple[str, ...]:
        """One line for each member, the decision shard first."""
        return tuple(self._line(number) for number in self._decision_first())

    def _line(self, number: int) -> str:
        view = self.shown[number]
        role = "decision shard" if number == self.gid.decision_shard else "participant"
        if not view.reached:
            return f"shard {number} ({role}): not reached: {view.reason}"
        prepared = "prepared" if view.gids else "not prepared"
        record = f"{view.record.outcome} record by {view.record.who}" if view.record else "no record"
        return f"shard {number} ({role}): {prepared}, {record}, timeline {view.timeline:x}, epochs retired up to {view.retired:x}"

    def _decision_first(self) -> list[int]:
        return sorted(self.shown, key=lambda number: (number != self.gid.decision_shard, number))

    def _owners(self) -> set[str]:
        """Who may have written this transaction's record; a scan hands in the parts of one owner at a time."""
        return {owner for _, owner in self.seen}

    def _parts(self) -> list[tuple[Gid, str]]:
        return [part for view in self.shown.values() if view.reached for part in view.gids]

    def _not_reached(self) -> str:
        return _list(number for number in self.members if number not in self.shown or not self.shown[number].reached)

    def _judgement(
        self,
        step: Next,
        transaction_class: TransactionClass,
        reason: str,
        *,
        source: int | None = None,
        owner: str = "",
        audit: str = "",
        leave: frozenset[int] = frozenset(),
    ) -> Judgement:
        return Judgement(step, Verdict(transaction_class, reason, self.evidence(), loss=audit), source, owner, audit, leave)

    def _nothing(self, transaction_class: TransactionClass, reason: str) -> Judgement:
        return self._judgement(Next.NOTHING, transaction_class, reason)


def _list(numbers: object) -> str:
    assert hasattr(numbers, "__iter__")
    return ", ".join(str(number) for number in sorted(numbers))
