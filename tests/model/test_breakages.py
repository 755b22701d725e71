"""The invariants hold for the engine as it is, and each of these breakages of it is noticed.

Random schedules over shards in memory (`simulation`), the same seeds for all: the engine must pass every one of them, and with a
breakage at least one of them must break an invariant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from shardproxy.backend.connection import QueryResult
from shardproxy.query.commit import Commit
from shardproxy.twophase import coordinator, evidence, recovery
from shardproxy.twophase import messages as m
from simulation import Run

SEEDS = range(3000)
Patch = pytest.MonkeyPatch


def _decide_before_all_have_prepared(patch: Patch) -> None:
    right = coordinator.Coordinator._on_prepared

    def wrong(self: coordinator.Coordinator, reply: m.Reply) -> coordinator.Step:
        if isinstance(reply, m.Prepared) and reply.shard == self.decision:
            return replace(self._set(reply.shard, coordinator.Part.PREPARED), waiting=frozenset())._decide()
        return right(self, reply)

    patch.setattr(coordinator.Coordinator, "_on_prepared", wrong)
    for name in ("_on_decided", "_on_finished"):  # replies to the other prepares come later now
        _ignoring(patch, name)


def _ignoring(patch: Patch, name: str) -> None:
    right: Callable[[Any, m.Reply], coordinator.Step] = getattr(coordinator.Coordinator, name)

    def wrong(self: coordinator.Coordinator, reply: m.Reply) -> coordinator.Step:
        return (self, ()) if isinstance(reply, m.Prepared | m.Refused) else right(self, reply)

    patch.setattr(coordinator.Coordinator, name, wrong)


def _tag_of_prepare_not_checked(patch: Patch) -> None:
    def wrong(self: Commit, shard: int, result: QueryResult) -> m.Reply:
        return m.Prepared(shard) if result.error is None else m.Refused(shard, open=result.status != "I")

    patch.setattr(Commit, "_judge_prepare", wrong)


def _abort_by_absence(patch: Patch) -> None:
    right = evidence._Case._abort

    def wrong(self: evidence._Case, decision: evidence.ShardView, *, rose: bool) -> evidence.Judgement:
        judgement = right(self, decision, rose=rose)
        skipped = judgement.next is evidence.Next.WIN_TOMBSTONE
        return replace(judgement, next=evidence.Next.ROLL_BACK) if skipped else judgement

    patch.setattr(evidence._Case, "_abort", wrong)


def _42704_is_success(patch: Patch) -> None:
    right = coordinator.Coordinator._on_decided

    def wrong(self: coordinator.Coordinator, reply: m.Reply) -> coordinator.Step:
        return self._finish() if isinstance(reply, m.Gone) else right(self, reply)

    patch.setattr(coordinator.Coordinator, "_on_decided", wrong)


def _a_lost_decision_is_an_abort(patch: Patch) -> None:
    right = coordinator.Coordinator._on_decided

    def wrong(self: coordinator.Coordinator, reply: m.Reply) -> coordinator.Step:
        return self._abort() if isinstance(reply, m.Lost) else right(self, reply)

    patch.setattr(coordinator.Coordinator, "_on_decided", wrong)


def _guess_when_the_decision_shard_is_away(patch: Patch) -> None:
    right = evidence._Case.by_absence

    def wrong(self: evidence._Case) -> evidence.Judgement:
        judgement = right(self)
        away = judgement.verdict.transaction_class is evidence.TransactionClass.UNREACHABLE
        return replace(judgement, next=evidence.Next.ROLL_BACK) if away else judgement

    patch.setattr(evidence._Case, "by_absence", wrong)


def _anybodys_record_counts(patch: Patch) -> None:
    patch.setattr(evidence._Case, "_owners", lambda _: {"app", "mallory"})
    right = recovery.Resolver._parts
    patch.setattr(
        recovery.Resolver,
        "_parts",
        lambda self: right(replace(self, judgement=self.judgement and replace(self.judgement, owner="app"))),
    )


def _the_decision_shard_is_not_asked_again(patch: Patch) -> None:
    """After a failover its part is rolled back although another part was resolved by somebody else, perhaps committed."""
    right = recovery.Resolver._acted

    def wrong(self: recovery.Resolver, reply: m.Reply) -> recovery.Step:
        return right(self, m.Done(reply.shard) if isinstance(reply, m.Gone) else reply)

    patch.setattr(recovery.Resolver, "_acted", wrong)


def _any_timeline_may_decide(patch: Patch) -> None:
    right = coordinator.Coordinator._decide

    def wrong(self: coordinator.Coordinator) -> coordinator.Step:
        state, _ = right(self)
        one = state._participant(state.decision)
        return state, (m.CommitPrepared(one.gid, one.owner),)

    patch.setattr(coordinator.Coordinator, "_decide", wrong)


def _last_agents_absence_is_an_abort(patch: Patch) -> None:
    """Conclude by reading: its COMMIT may still be on its way."""
    right = coordinator.Coordinator._judge

    def wrong(
        self: coordinator.Coordinator, one: coordinator.Participant, record: m.Record | None, retired: int
    ) -> coordinator.Step:
        if record is None and self.last_agent:
            return self._set(self.decision, coordinator.Part.ABORTED)._abort()
        return right(self, one, record, retired)

    patch.setattr(coordinator.Coordinator, "_judge", wrong)


def _the_fence_is_a_proof(patch: Patch) -> None:
    """Fence without asking again: the COMMIT may have got in before the session ended."""

    def wrong(self: recovery.Resolver, reply: m.Reply) -> recovery.Step:
        return self._act()

    patch.setattr(recovery.Resolver, "_fenced", wrong)


LAST_AGENT_BREAKAGES = [_last_agents_absence_is_an_abort, _the_fence_is_a_proof]
BREAKAGES = [
    _decide_before_all_have_prepared,
    _tag_of_prepare_not_checked,
    _abort_by_absence,
    _42704_is_success,
    _a_lost_decision_is_an_abort,
    _guess_when_the_decision_shard_is_away,
    _anybodys_record_counts,
    _the_decision_shard_is_not_asked_again,
    _any_timeline_may_decide,
]


@pytest.mark.parametrize("last_agent", [False, True])
@pytest.mark.parametrize("participants", [2, 3])
def test_the_invariants_hold(participants: int, last_agent: bool) -> None:
    for seed in SEEDS:
        run = Run(seed, participants, last_agent).play()
        assert run.violations() == [], "\n".join([f"seed {seed}", *run.trace])


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda one: one.__name__.strip("_"))
def test_a_breakage_is_noticed(breakage: Callable[[Patch], None], monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    assert any(Run(seed, participants).play().violations() for seed in SEEDS for participants in (2, 3))


@pytest.mark.parametrize("breakage", LAST_AGENT_BREAKAGES, ids=lambda one: one.__name__.strip("_"))
def test_a_breakage_of_last_agent_is_noticed(breakage: Callable[[Patch], None], monkeypatch: Patch) -> None:
    breakage(monkeypatch)
    assert any(Run(seed, participants, last_agent=True).play().violations() for seed in SEEDS for participants in (2, 3))
