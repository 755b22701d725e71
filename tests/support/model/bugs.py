"""Seeded bugs: each takes one rule of docs/commit-protocol.md out of the shipped engine, or out of what its driver sends.

Driver and SQL are part of the model's server, so their rules are taken out there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from model import actors, server
from model.names import APP, FORGER, TXN
from model.server import Data, Row, Server, Session
from shardproxy.backend.connection import QueryResult
from shardproxy.query.commit import Commit
from shardproxy.twophase import cleanup_messages as c
from shardproxy.twophase import coordinator, evidence, recovery
from shardproxy.twophase import messages as m
from shardproxy.twophase.cleanup import Cleaner, Exchange
from shardproxy.twophase.coordinator import Coordinator, Part, Phase
from shardproxy.twophase.evidence import Next, TransactionClass

Patch = pytest.MonkeyPatch
Bug = Callable[[Patch], None]


def _wrap(patch: Patch, owner: Any, name: str, wrong: Callable[..., Any]) -> None:
    """`wrong` gets the right one first."""
    right = getattr(owner, name)
    patch.setattr(owner, name, lambda *given: wrong(right, *given))


# --- steps 1 and 2


def decide_before_all_have_prepared(patch: Patch) -> None:
    def wrong(right: Any, self: Coordinator, reply: m.Reply) -> coordinator.Step:
        if isinstance(reply, m.Prepared) and reply.shard == self.decision:
            return replace(self._set(reply.shard, Part.PREPARED), waiting=frozenset())._decide()
        return right(self, reply)  # type: ignore[no-any-return]

    _wrap(patch, Coordinator, "_on_prepared", wrong)
    _instead(patch, "_on_decided", m.Prepared, lambda self, _: (self, ()))
    patch.setattr(Coordinator, "_finish", lambda self: (replace(self, phase=Phase.FINISH), ()))


def tag_of_prepare_not_checked(patch: Patch) -> None:
    def wrong(self: Commit, shard: int, result: QueryResult) -> m.Reply:
        return m.Prepared(shard) if result.error is None else m.Refused(shard, open=result.status != "I")

    patch.setattr(Commit, "_judge_prepare", wrong)


def _begin_again(right: Any, state: Server, number: int) -> server.Outcome:
    """On a new session: an empty transaction."""
    if state.session is not Session.NONE or state.now.row or state.now.prepared:
        return right(state, number)  # type: ignore[no-any-return]
    return m.Prepared(number), state.write(prepared=Data.EMPTY)


def prepare_in_one_pipeline_with_begin(patch: Patch) -> None:
    """The session was lost before; nobody waited for the answers."""
    patch.setattr(actors, "OPENS_ITS_OWN", (*actors.OPENS_ITS_OWN, m.Prepare))
    _wrap(patch, server, "_prepare", _begin_again)


def prepare_retried(patch: Patch) -> None:
    def wrong(right: Any, self: Coordinator, reply: m.Reply) -> coordinator.Step:
        if isinstance(reply, m.Lost) and self._participant(reply.shard).part is Part.OPEN:
            return self._set(reply.shard, Part.LOST), (m.Prepare(reply.shard),)
        return right(self, reply)  # type: ignore[no-any-return]

    _wrap(patch, Coordinator, "_on_prepared", wrong)
    _wrap(patch, actors, "_send", lambda right, actor, command: right(actor.mend(command.shard), command))
    _wrap(patch, server, "_prepare", _begin_again)


def epoch_not_checked_by_prepare(patch: Patch) -> None:
    patch.setattr(server, "EPOCHS_OF_GRACE", 99)


# --- steps 3 and 4


def any_timeline_may_decide(patch: Patch) -> None:
    def wrong(right: Any, self: Coordinator) -> coordinator.Step:
        state, _ = right(self)
        one = state._participant(state.decision)
        return state, (m.CommitPrepared(one.gid, one.owner),)

    _wrap(patch, Coordinator, "_decide", wrong)


def roll_others_back_before_the_decision_is_proven_aborted(patch: Patch) -> None:
    _instead(patch, "_on_decided", m.Lost, lambda self, _: self._abort())


def gone_is_success_on_the_decision_shard(patch: Patch) -> None:
    _instead(patch, "_on_decided", m.Gone, lambda self, _: self._finish())


def gone_is_success_on_a_participant(patch: Patch) -> None:
    _instead(patch, "_on_finished", m.Gone, lambda self, shard: self._set(shard, Part.COMMITTED)._end_if_done())


def _instead(patch: Patch, name: str, kind: type, then: Callable[[Any, int], coordinator.Step]) -> None:
    def wrong(right: Any, self: Coordinator, reply: m.Reply) -> coordinator.Step:
        return then(self, reply.shard) if isinstance(reply, kind) else right(self, reply)

    _wrap(patch, Coordinator, name, wrong)


def coordinator_reads_the_record_before_the_gid(patch: Patch) -> None:
    def wrong(right: Any, self: Coordinator, reply: m.Reply) -> coordinator.Step:
        match reply:
            case m.Connected(shard):
                return self, (m.ReadRecord(shard),)
            case m.RecordIs(shard, None):
                return self, (m.ReadGids(shard),)
            case m.GidsAre(shard, ()):
                return self._judge(self._participant(shard), None, 0)
            case _:
                return right(self, reply)  # type: ignore[no-any-return]

    _wrap(patch, Coordinator, "_on_asked", wrong)


def conclude_abort_by_reading(patch: Patch) -> None:
    """Last agent: its COMMIT may still be on its way."""
    _wrap(patch, Coordinator, "_judge", lambda right, self, *given: right(replace(self, last_agent=False), *given))


def coordinator_fences_without_asking_again(patch: Patch) -> None:
    _instead(patch, "_on_fenced", m.Done, lambda self, shard: self._set(shard, Part.ABORTED)._abort())


# --- recovery


def _judging(patch: Patch, name: str, wrong: Callable[[evidence.Judgement], bool]) -> None:
    """Roll back where the judgement looks like this."""

    def judged(right: Any, self: Any, *given: Any, **named: Any) -> evidence.Judgement:
        judgement: evidence.Judgement = right(self, *given, **named)
        return replace(judgement, next=Next.ROLL_BACK) if wrong(judgement) else judgement

    right = getattr(evidence._Case, name)
    patch.setattr(evidence._Case, name, lambda self, *given, **named: judged(right, self, *given, **named))


def skip_the_tombstone(patch: Patch) -> None:
    _judging(patch, "_abort", lambda judgement: judgement.next is Next.WIN_TOMBSTONE)


def guess_when_the_decision_shard_is_away(patch: Patch) -> None:
    _judging(patch, "by_absence", lambda judgement: judgement.verdict.transaction_class is TransactionClass.UNREACHABLE)


def presume_abort_after_a_failover_with_a_shard_unreached(patch: Patch) -> None:
    patch.setattr(evidence._Case, "_not_reached", lambda self: "")


def anybodys_record_counts(patch: Patch) -> None:
    patch.setattr(evidence._Case, "_owners", lambda _: {APP, FORGER})
    right = recovery.Resolver._parts
    patch.setattr(
        recovery.Resolver,
        "_parts",
        lambda self: right(replace(self, judgement=self.judgement and replace(self.judgement, owner=APP))),
    )


def the_decision_shard_is_not_asked_again(patch: Patch) -> None:
    """After a failover its part is rolled back although another part was resolved by somebody else, perhaps committed."""

    def wrong(right: Any, self: recovery.Resolver, reply: m.Reply) -> recovery.Step:
        return right(self, m.Done(reply.shard) if isinstance(reply, m.Gone) else reply)  # type: ignore[no-any-return]

    _wrap(patch, recovery.Resolver, "_acted", wrong)


def the_abort_is_not_announced(patch: Patch) -> None:
    _wrap(patch, recovery, "judge", lambda right, *given: replace(right(*given), audit=""))


def tombstone_without_the_retirement_check(patch: Patch) -> None:
    def wrong(right: Any, state: Server, number: int, epoch: int) -> server.Outcome:
        return right(state, number, epoch + 99)  # type: ignore[no-any-return]

    _wrap(patch, server, "_tombstone", wrong)


def fence_without_asking_again(patch: Patch) -> None:
    """The session that was to be ended may have committed before."""
    _wrap(patch, recovery.Resolver, "_fenced", lambda right, self, reply: self._without(reply.shard)._act())


# --- clean-up


def tombstone_taken_out_early(patch: Patch) -> None:
    def wrong(right: Any, state: Server, command: server.Command) -> server.Outcome:
        if isinstance(command, c.DeleteTombstones) and state.now.row is Row.TOMBSTONE:
            return m.Done(command.shard), state.write(row=Row.NONE)
        return right(state, command)  # type: ignore[no-any-return]

    _wrap(patch, server, "_clean_up", wrong)


def retire_past_a_record_that_was_not_checked(patch: Patch) -> None:
    def wrong(right: Any, state: Server, command: server.Command) -> server.Outcome:
        if not isinstance(command, c.Retire) or command.txns or state.now.row is not Row.COMMIT:
            return right(state, command)  # type: ignore[no-any-return]
        reply, then = right(state._replace(past=(state.now._replace(row=Row.NONE),)), command)
        return reply, then.write(row=Row.COMMIT)

    _wrap(patch, server, "_clean_up", wrong)


def retire_deletes_by_epoch(patch: Patch) -> None:
    def wrong(right: Any, state: Server, command: server.Command) -> server.Outcome:
        if isinstance(command, c.Retire):
            command = replace(command, txns=(TXN,))
        return right(state, command)  # type: ignore[no-any-return]

    _wrap(patch, server, "_clean_up", wrong)


def retire_past_a_prepared_gid(patch: Patch) -> None:
    def wrong(self: Cleaner, epoch: int) -> Any:
        yield from ()
        return True

    patch.setattr(Cleaner, "_nothing_prepared", wrong)


def list_before_looking_at_records(patch: Patch) -> None:
    right = Cleaner._retire

    def wrong(self: Cleaner, epoch: int, timeline: int) -> Exchange:
        if self._unreached or not (yield from self._nothing_prepared(epoch)):
            return
        self._nothing_prepared = _nothing_prepared  # type: ignore[method-assign]
        yield from right(self, epoch, timeline)

    def _nothing_prepared(epoch: int) -> Any:
        yield from ()
        return True

    patch.setattr(Cleaner, "_retire", wrong)


def delete_others_records_first(patch: Patch) -> None:
    right = Cleaner._retire

    def wrong(self: Cleaner, epoch: int, timeline: int) -> Exchange:
        yield from self._each([c.DeleteRecords(number, self.decision, epoch) for number in self._others], m.Done)
        yield from right(self, epoch, timeline)

    patch.setattr(Cleaner, "_retire", wrong)


def delete_others_records_before_the_retirement_is_replayed(patch: Patch) -> None:
    right = Cleaner._replayed

    def wrong(self: Cleaner, shards: list[int]) -> Any:
        if shards == [self.decision]:
            return True
        return (yield from right(self, shards))

    patch.setattr(Cleaner, "_replayed", wrong)


def do_not_compare_after_a_promotion(patch: Patch) -> None:
    def wrong(self: Cleaner, retired: int, timeline: int) -> Exchange:
        yield from ()

    patch.setattr(Cleaner, "_compare", wrong)


def compare_while_others_still_finish(patch: Patch) -> None:
    patch.setattr(Cleaner, "_is_older", lambda self, gid, retired, timeline: False)
