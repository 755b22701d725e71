"""The resolver, step by step: what it asks in which order, what it wins before it acts, and how it ends when something fails."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardproxy.twophase import messages as m
from shardproxy.twophase.evidence import TransactionClass, Verdict
from shardproxy.twophase.gid import Gid
from shardproxy.twophase.messages import Record
from shardproxy.twophase.recovery import MAX_ROUNDS, Phase, Resolver

D, P, Q = 0, 1, 2
APP, MALLORY, TOMBSTONE = Record("commit", "app"), Record("commit", "mallory"), Record("abort", "recovery")


def gid(shard: int) -> Gid:
    return Gid("00c0ffee00c0ffee", "ab" * 16, 5, 1, 1, D, shard)


def part(shard: int, owner: str = "app") -> tuple[Gid, str]:
    return (gid(shard), owner)


class Script:
    """Feeds replies and remembers commands."""

    def __init__(self, *, read_only: bool = False, fence: bool = False, seen: tuple[int, ...] = (P, Q)) -> None:
        shards = frozenset({D, P, Q})
        self.state = Resolver(gid(P), shards, tuple(part(shard) for shard in seen), read_only=read_only, fence=fence)
        self.state, self.commands = self.state.start()

    def reply(self, *replies: m.Reply) -> tuple[m.RecoveryCommand, ...]:
        for one in replies:
            self.state, self.commands = self.state.step(one)
        return self.commands

    def shows(
        self, shard: int, *, prepared: bool = True, record: Record | None = None, timeline: int = 1, retired: int = 0
    ) -> None:
        """One shard answers all three questions."""
        assert self.reply(m.Connected(shard, timeline)) == (m.ReadGids(shard),)
        assert self.reply(m.GidsAre(shard, (part(shard),) if prepared else ())) == (m.ReadRecord(shard),)
        self.reply(m.RecordIs(shard, record, retired))

    def undecided(self, *, decision_prepared: bool = True, timeline: int = 1) -> Script:
        self.shows(D, prepared=decision_prepared, timeline=timeline)
        self.shows(P)
        self.shows(Q)
        return self

    @property
    def verdict(self) -> Verdict:
        assert self.state.verdict is not None
        return self.state.verdict

    def ends(self, wanted: TransactionClass, *words: str) -> None:
        assert self.state.phase is Phase.DONE
        assert self.commands == ()
        assert self.verdict.transaction_class is wanted
        for word in words:
            assert word in self.verdict.reason


def test_the_decision_shard_is_asked_before_all_others() -> None:
    script = Script()
    assert script.commands == (m.Connect(D),)
    script.shows(D)
    assert [command.shard for command in script.commands] == [P, Q], "and only then the others, in parallel"


def test_a_record_is_acted_on_only_once_it_is_known_to_be_replicated() -> None:
    script = Script()
    script.shows(D, prepared=False, record=APP)
    script.shows(P)
    script.shows(Q)
    assert script.commands == (m.ConfirmDurable(D),)
    assert script.reply(m.Done(D)) == (m.CommitPrepared(gid(P), "app"), m.CommitPrepared(gid(Q), "app"))
    script.reply(m.Done(P), m.Gone(Q))
    script.ends(TransactionClass.COMMITTED)
    assert script.verdict.acted == ("shard 1: committed", "shard 2: resolved by somebody else")


@pytest.mark.parametrize("reply", [m.Done(D, durable=False), m.Lost(D), m.Failed(D, "57P01")])
def test_a_record_that_is_not_confirmed_is_a_doubt(reply: m.Reply) -> None:
    script = Script()
    script.shows(D, prepared=False, record=APP)
    script.shows(P)
    script.shows(Q)
    script.reply(reply)
    script.ends(TransactionClass.IN_DOUBT, "not yet known to be replicated")


def test_another_shards_record_commits_the_decision_shard_too() -> None:
    script = Script()
    script.shows(D)
    script.shows(P, prepared=False, record=APP)
    script.shows(Q)
    assert script.commands == (m.ConfirmDurable(P),)
    script.reply(m.Done(P))
    assert {command.shard for command in script.commands} == {D, Q}


def test_only_parts_of_the_records_writer_are_committed() -> None:
    script = Script()
    script.shows(D, prepared=False, record=APP)
    script.shows(P)
    script.reply(m.Connected(Q, 1), m.GidsAre(Q, (part(Q, "mallory"),)), m.RecordIs(Q, None, 0))
    assert script.reply(m.Done(D)) == (m.CommitPrepared(gid(P), "app"),)


def test_the_right_to_abort_is_won_on_the_decision_shard_first() -> None:
    script = Script().undecided()
    assert script.commands == (m.RollbackPrepared(gid(D), "app"),)
    assert script.reply(m.Done(D)) == (m.RollbackPrepared(gid(P), "app"), m.RollbackPrepared(gid(Q), "app"))
    script.reply(m.Done(P), m.Done(Q))
    script.ends(TransactionClass.ABORTED)


def test_a_lost_race_is_asked_about_again() -> None:
    script = Script().undecided()
    assert script.reply(m.Gone(D)) == (m.Connect(D),)
    script.shows(D, prepared=False, record=APP)
    script.shows(P)
    script.shows(Q)
    assert script.commands == (m.ConfirmDurable(D),), "the coordinator had won"


def test_after_five_lost_races_somebody_else_is_at_it() -> None:
    script = Script()
    for _ in range(MAX_ROUNDS):
        script.undecided()
        script.reply(m.Gone(D))
    script.ends(TransactionClass.IN_DOUBT, "somebody else")


def test_busy_is_asked_about_again_but_a_missing_grant_is_not() -> None:
    script = Script().undecided()
    assert script.reply(m.Failed(D, "55000", "is busy")) == (m.Connect(D),)
    script = Script().undecided()
    script.reply(m.Failed(D, "42501", 'GRANT "app" TO recovery'))
    script.ends(TransactionClass.IN_DOUBT, "42501", 'GRANT "app"')


def test_a_lost_link_while_winning_is_a_doubt() -> None:
    script = Script().undecided()
    script.reply(m.Lost(D, "reset"))
    script.ends(TransactionClass.IN_DOUBT, "reset")
    assert script.verdict.acted == ()


def test_without_a_part_on_the_decision_shard_the_tombstone_is_won() -> None:
    script = Script().undecided(decision_prepared=False)
    assert script.commands == (m.WriteTombstone(D, "ab" * 16, 5),)
    assert {command.shard for command in script.reply(m.Done(D))} == {P, Q}
    script.reply(m.Done(P), m.Done(Q))
    script.ends(TransactionClass.ABORTED)
    assert script.verdict.acted[0] == "shard 0: tombstone written"


def test_a_refused_tombstone_is_asked_about_again() -> None:
    script = Script().undecided(decision_prepared=False)
    assert script.reply(m.NotInserted(D)) == (m.Connect(D),)


def test_a_blocked_tombstone_waits_for_the_coordinator() -> None:
    script = Script().undecided(decision_prepared=False)
    script.reply(m.Blocked(D))
    script.ends(TransactionClass.IN_DOUBT, "still at work")
    assert script.verdict.waits


def _blocked_for_too_long() -> Script:
    script = Script(fence=True).undecided(decision_prepared=False)
    assert script.reply(m.Blocked(D)) == (m.Fence(D, "ab" * 16, 5, "app"),)
    return script


def test_after_the_fence_everything_is_asked_again() -> None:
    """The coordinator's COMMIT may have got in before its session ended."""
    script = _blocked_for_too_long()
    assert script.reply(m.Done(D)) == (m.Connect(D),)
    script.shows(D, prepared=False, record=APP)
    script.shows(P)
    script.shows(Q)
    assert script.commands == (m.ConfirmDurable(D),)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (m.Blocked(D), "no open transaction of 'app'"),
        (m.Failed(D, "42501", 'GRANT "app" TO recovery'), 'GRANT "app"'),
        (m.Lost(D, "reset"), "reset"),
    ],
)
def test_what_may_not_be_fenced_is_waited_for(reply: m.Reply, words: str) -> None:
    script = _blocked_for_too_long()
    script.reply(reply)
    script.ends(TransactionClass.IN_DOUBT, words)
    assert script.verdict.waits
    assert script.verdict.acted == ()


def test_the_fence_is_not_used_while_the_tombstone_gets_in() -> None:
    script = Script(fence=True).undecided(decision_prepared=False)
    assert {command.shard for command in script.reply(m.Done(D))} == {P, Q}


def test_after_a_failover_the_abort_is_announced_and_the_decision_shard_comes_last() -> None:
    script = Script().undecided(timeline=2)
    (audit,) = script.commands
    assert isinstance(audit, m.WriteAudit)
    assert audit.shard == D
    assert {command.shard for command in script.reply(m.Done(D))} == {P, Q}
    assert script.reply(m.Done(P)) == ()
    assert script.reply(m.Done(Q)) == (m.RollbackPrepared(gid(D), "app"),)
    script.reply(m.Done(D))
    script.ends(TransactionClass.ABORTED)
    assert "may be lost" in script.verdict.loss


def test_after_a_failover_a_part_that_is_gone_is_looked_at_before_the_decision_shard_is_rolled_back() -> None:
    """A coordinator that still lives may have committed it: its record then repairs the decision shard."""
    script = Script().undecided(timeline=2)
    script.reply(m.Done(D), m.Done(Q))
    assert script.reply(m.Gone(P)) == (m.Connect(D),)
    script.shows(D, timeline=2)
    script.shows(P, prepared=False, record=APP)
    script.shows(Q, prepared=False)
    script.reply(m.Done(P))
    assert script.commands == (m.CommitPrepared(gid(D), "app"),)


def test_after_a_failover_a_part_that_could_not_be_rolled_back_keeps_the_decision_shard() -> None:
    script = Script().undecided(timeline=2)
    script.reply(m.Done(D), m.Done(P), m.Failed(Q, "42501", "denied"))
    script.ends(TransactionClass.ABORTED)
    assert script.verdict.failures == ("shard 2: 42501 denied",)


def test_without_the_audit_row_nothing_is_done() -> None:
    script = Script().undecided(timeline=2)
    script.reply(m.Failed(D, "42501", "denied"))
    script.ends(TransactionClass.IN_DOUBT, "audit")


def test_a_link_that_breaks_between_gid_and_record_shows_nothing() -> None:
    script = Script()
    script.reply(m.Connected(D, 1), m.GidsAre(D, (part(D),)), m.Lost(D, "reset"))
    script.shows(P)
    script.shows(Q)
    script.ends(TransactionClass.UNREACHABLE, "reset")


def test_a_tombstone_aborts() -> None:
    script = Script()
    script.shows(D, prepared=False, record=TOMBSTONE)
    script.shows(P)
    script.shows(Q)
    assert script.commands == (m.RollbackPrepared(gid(P), "app"), m.RollbackPrepared(gid(Q), "app"))


def test_a_forged_record_is_neither_evidence_nor_absence() -> None:
    script = Script()
    script.shows(D, prepared=False, record=MALLORY)
    script.shows(P)
    script.shows(Q)
    script.ends(TransactionClass.IN_DOUBT, "mallory")


@pytest.mark.parametrize(
    "changes", [{"epoch": 6}, {"decision_timeline": 2}, {"decision_shard": P}, {"cluster": "1" * 16}, {"txn": "cd" * 16}]
)
def test_a_name_that_agrees_only_in_part_is_not_a_part(changes: dict[str, object]) -> None:
    script = Script()
    other = replace(gid(D), **changes)  # type: ignore[arg-type]
    script.reply(m.Connected(D, 1), m.GidsAre(D, ((other, "mallory"),)), m.RecordIs(D, None, 0))
    script.shows(P)
    script.shows(Q)
    assert script.commands == (m.WriteTombstone(D, "ab" * 16, 5),)


@pytest.mark.parametrize("decision_prepared", [True, False])
def test_observing_ends_before_the_first_write(*, decision_prepared: bool) -> None:
    script = Script(read_only=True).undecided(decision_prepared=decision_prepared)
    script.ends(TransactionClass.ABORTED)
    assert script.verdict.acted == ()


def test_only_the_resurrected_part_is_left() -> None:
    script = Script()
    script.shows(D, prepared=False, retired=5)
    script.shows(P, timeline=2)
    script.shows(Q)
    assert script.commands == (m.RollbackPrepared(gid(Q), "app"),)
    script.reply(m.Done(Q))
    script.ends(TransactionClass.RESURRECTED)


def test_a_reply_that_nothing_asked_for_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="no answer to anything"):
        Script().reply(m.Done(D))
