"""The coordinator, step by step: each test is one way through the commit protocol's failure table."""

from __future__ import annotations

import pytest

from shardproxy.twophase import messages as m
from shardproxy.twophase.coordinator import FENCE_AFTER, Coordinator, Phase, begin, choose_decision
from shardproxy.twophase.gid import Gid
from shardproxy.twophase.messages import Outcome

D, P = 0, 1


class Script:
    """Feeds replies and remembers commands."""

    def __init__(self, readers: tuple[int, ...] = (), *, last_agent: bool = False) -> None:
        timelines, owners = {D: 1, P: 1}, {D: "app", P: "app"}
        state = begin(
            cluster="00c0ffee00c0ffee", txn="ab" * 16, epoch=3, decision=D, timelines=timelines, owners=owners, readers=readers,
            last_agent=last_agent,
        )  # fmt: skip
        self.state, self.commands = state.start()

    def reply(self, *replies: m.Reply) -> tuple[m.CoordinatorCommand, ...]:
        for one in replies:
            self.state, self.commands = self.state.step(one)
        return self.commands

    def kinds(self) -> list[str]:
        return [type(command).__name__ for command in self.commands]

    def gid(self, shard: int) -> Gid:
        return next(each.gid for each in self.state.participants if each.gid.shard == shard)

    def decide(self) -> Script:
        self.reply(*([] if self.state.last_agent else [m.Prepared(D)]), m.Prepared(P))
        return self

    def asked(self, record: m.Record | None = None, *, retired: int = 0, timeline: int = 1) -> Script:
        """The decision shard shows no GID, and this."""
        assert self.commands == (m.Connect(D),)
        assert self.reply(m.Connected(D, timeline)) == (m.ReadGids(D),)
        assert self.reply(m.GidsAre(D, ())) == (m.ReadRecord(D),)
        self.reply(m.RecordIs(D, record, retired))
        return self

    def again(self) -> Script:
        """After the pause that it has asked for."""
        (wait,) = self.commands
        assert isinstance(wait, m.Wait)
        self.reply(m.Elapsed(D))
        return self

    def reported(self) -> Outcome | None:
        return self.state.reported


def test_the_way_through() -> None:
    script = Script()
    assert script.kinds() == ["Prepare", "Prepare"]
    assert script.reply(m.Prepared(P)) == ()
    (decide,) = script.reply(m.Prepared(D))
    assert isinstance(decide, m.CommitPrepared)
    assert decide.shard == D
    assert decide.timeline == 1, "the first COMMIT PREPARED too must go to the GID's own timeline"
    (finish,) = script.reply(m.Done(D))
    assert isinstance(finish, m.CommitPrepared)
    assert finish.shard == P
    assert script.reported() is None
    assert script.reply(m.Done(P)) == (m.Report(Outcome.COMMITTED, frozenset()),)
    assert script.state.phase is Phase.DONE


def test_nothing_is_decided_before_all_have_prepared() -> None:
    script = Script()
    assert script.reply(m.Refused(P, open=True)) == ()
    script.reply(m.Prepared(D))
    assert script.kinds() == ["RollbackPrepared", "Rollback"]
    script.reply(m.Done(D), m.Done(P))
    assert script.reported() is Outcome.ABORTED


def test_a_lost_prepare_is_an_abort_and_is_never_sent_again() -> None:
    script = Script()
    script.reply(m.Lost(P))
    script.reply(m.Prepared(D))
    assert script.kinds() == ["RollbackPrepared", "RollbackPrepared"]
    script.reply(m.Done(D), m.Gone(P))
    assert script.reported() is Outcome.ABORTED


def test_a_prepare_that_was_not_replicated_is_an_abort() -> None:
    script = Script()
    script.reply(m.Prepared(D), m.Refused(P, prepared=True))
    assert script.kinds() == ["RollbackPrepared", "RollbackPrepared"]


def test_readers_are_closed_before_the_decision() -> None:
    script = Script(readers=(2,))
    script.decide()
    assert script.commands == (m.CloseReader(2),)
    script.reply(m.Refused(2, open=True))
    assert script.kinds() == ["RollbackPrepared", "RollbackPrepared", "Rollback"]


def test_a_lost_decision_is_asked_about() -> None:
    script = Script().decide()
    assert script.reply(m.Lost(D)) == (m.Connect(D),)
    assert script.reply(m.Connected(D, 1)) == (m.ReadGids(D),)
    assert script.reply(m.GidsAre(D, ())) == (m.ReadRecord(D),)
    assert script.reply(m.RecordIs(D, m.Record("commit", "app"), 0)) == (m.ConfirmDurable(D),)
    script.reply(m.Done(D))
    assert script.kinds() == ["CommitPrepared"]


def test_still_prepared_is_decided_again() -> None:
    script = Script().decide()
    script.reply(m.Lost(D), m.Connected(D, 1))
    (again,) = script.reply(m.GidsAre(D, ((script.gid(D), "app"),)))
    assert isinstance(again, m.CommitPrepared)
    assert again.timeline == 1


def test_42704_on_the_decision_shard_is_not_success() -> None:
    script = Script().decide()
    script.reply(m.Gone(D), m.Connected(D, 1), m.GidsAre(D, ()))
    script.reply(m.RecordIs(D, m.Record("abort", "recovery"), 0))
    assert script.kinds() == ["RollbackPrepared"], "recovery has aborted it: only the other part is rolled back"
    script.reply(m.Done(P))
    assert script.reported() is Outcome.ABORTED


def test_neither_is_an_abort_only_while_the_epoch_is_not_retired() -> None:
    for retired, phase in ((2, Phase.ABORT), (3, Phase.HANDED_OVER)):
        script = Script().decide()
        script.reply(m.Lost(D), m.Connected(D, 1), m.GidsAre(D, ()), m.RecordIs(D, None, retired))
        assert script.state.phase is phase


def test_after_a_failover_absence_proves_nothing() -> None:
    script = Script().decide()
    script.reply(m.Lost(D), m.Connected(D, 2), m.GidsAre(D, ()), m.RecordIs(D, None, 0))
    assert script.reported() is Outcome.UNKNOWN
    assert script.kinds() == ["Report"], "nothing is touched"


def test_a_record_of_somebody_else_is_no_evidence() -> None:
    script = Script().decide()
    script.reply(m.Lost(D), m.Connected(D, 1), m.GidsAre(D, ()), m.RecordIs(D, m.Record("commit", "mallory"), 0))
    assert script.reported() is Outcome.UNKNOWN


def test_not_replicated_is_not_committed() -> None:
    script = Script().decide()
    assert script.reply(m.Done(D, durable=False)) == (m.Connect(D),), "no step 4 before the decision is known to be replicated"
    script.reply(m.Connected(D, 1), m.GidsAre(D, ()), m.RecordIs(D, m.Record("commit", "app"), 0))
    assert script.reply(m.Done(D, durable=False)) == (m.Wait(D, 1),)


def test_an_unreachable_decision_shard_ends_in_unknown_and_is_asked_on() -> None:
    script = Script().decide()
    script.reply(m.Lost(D), m.Unreachable(D, "down"))
    assert script.commands == (m.Wait(D, 1),)
    assert script.reply(m.Overdue()) == (m.Report(Outcome.UNKNOWN, frozenset({D, P})),)
    assert script.reply(m.Elapsed(D)) == (m.Connect(D),)


def test_a_slow_finish_is_reported_as_committed() -> None:
    script = Script().decide()
    script.reply(m.Done(D))
    assert script.reply(m.Overdue()) == (m.Report(Outcome.COMMITTED, frozenset({P})),)
    assert script.reply(m.Lost(P)) == (m.Wait(P, 0),)
    assert isinstance(script.reply(m.Elapsed(P))[0], m.CommitPrepared)


def _missing_on_participant() -> Script:
    script = Script().decide()
    script.reply(m.Done(D), m.Gone(P), m.Connected(P, 1), m.GidsAre(P, ()))
    assert script.reply(m.RecordIs(P, None, 0)) == (m.Connect(D),)
    script.reply(m.Connected(D, 1), m.GidsAre(D, ()))
    return script


def test_a_part_that_is_gone_without_a_record_was_lost() -> None:
    script = _missing_on_participant()
    commands = script.reply(m.RecordIs(D, m.Record("commit", "app"), 0))
    assert commands == (m.ReportLoss(P), m.Report(Outcome.COMMITTED, frozenset()))


def test_a_part_whose_records_were_cleaned_up_was_not_lost() -> None:
    script = _missing_on_participant()
    assert script.reply(m.RecordIs(D, None, 3)) == (m.Report(Outcome.COMMITTED, frozenset()),)


def test_a_part_that_recovery_committed_is_committed() -> None:
    script = Script().decide()
    script.reply(m.Done(D), m.Gone(P), m.Connected(P, 1), m.GidsAre(P, ()), m.RecordIs(P, m.Record("commit", "app"), 0))
    assert script.reply(m.Done(P)) == (m.Report(Outcome.COMMITTED, frozenset()),)


def test_the_decision_is_spread_over_the_participants() -> None:
    chosen = {choose_decision(f"{number:032x}", frozenset({4, 7, 9})) for number in range(30)}
    assert chosen == {4, 7, 9}


def test_the_state_is_a_value() -> None:
    script = Script()
    assert isinstance(script.state, Coordinator)
    assert hash(script.state) == hash(Script().state)


TOMBSTONE = m.WriteTombstone(D, "ab" * 16, 3)


def test_last_agent_the_way_through() -> None:
    script = Script(last_agent=True)
    assert script.commands == (m.Prepare(P),), "the decision shard is not prepared"
    assert script.reply(m.Prepared(P)) == (m.CommitLast(D),)
    (finish,) = script.reply(m.Done(D))
    assert isinstance(finish, m.CommitPrepared)
    assert finish.shard == P
    assert script.reply(m.Done(P)) == (m.Report(Outcome.COMMITTED, frozenset()),)


def test_last_agent_readers_are_closed_before_the_decision() -> None:
    script = Script(readers=(2,), last_agent=True).decide()
    assert script.commands == (m.CloseReader(2),)
    assert script.reply(m.Done(2)) == (m.CommitLast(D),)


def test_last_agent_a_refused_prepare_rolls_the_open_decision_shard_back() -> None:
    script = Script(last_agent=True)
    assert script.reply(m.Refused(P)) == (m.Rollback(D),)
    script.reply(m.Done(D))
    assert script.reported() is Outcome.ABORTED


def test_last_agent_a_failed_block_is_a_certain_abort() -> None:
    script = Script(last_agent=True).decide()
    script.reply(m.Refused(D, open=True))
    assert script.kinds() == ["Rollback", "RollbackPrepared"]
    script.reply(m.Done(D), m.Done(P))
    assert script.reported() is Outcome.ABORTED


@pytest.mark.parametrize("reply", [m.Lost(D), m.Refused(D), m.Done(D, durable=False)])
def test_last_agent_nothing_else_is(reply: m.Reply) -> None:
    script = Script(last_agent=True).decide()
    assert script.reply(reply) == (m.Connect(D),)


def test_last_agent_a_record_that_got_in_is_a_commit() -> None:
    script = Script(last_agent=True).decide()
    script.reply(m.Lost(D))
    assert script.asked(m.Record("commit", "app")).commands == (m.ConfirmDurable(D),)
    script.reply(m.Done(D))
    assert script.kinds() == ["CommitPrepared"]


def test_last_agent_neither_proves_nothing_before_the_tombstone_is_in() -> None:
    script = Script(last_agent=True).decide()
    script.reply(m.Lost(D))
    assert script.asked().commands == (TOMBSTONE,)
    script.reply(m.Done(D))
    assert script.kinds() == ["RollbackPrepared"]
    script.reply(m.Done(P))
    assert script.reported() is Outcome.ABORTED


@pytest.mark.parametrize("reply", [m.NotInserted(D), m.Lost(D), m.Failed(D, "40001"), m.Blocked(D)])
def test_last_agent_a_tombstone_that_is_not_in_is_asked_about(reply: m.Reply) -> None:
    script = Script(last_agent=True).decide()
    script.reply(m.Lost(D))
    script.asked()
    script.reply(reply)
    script.again().asked(m.Record("commit", "app"))
    assert script.commands == (m.ConfirmDurable(D),)


def test_last_agent_a_tombstone_that_keeps_waiting_is_fenced_and_asked_about() -> None:
    script = Script(last_agent=True).decide()
    script.reply(m.Lost(D))
    for _ in range(FENCE_AFTER - 1):
        script.asked()
        script.reply(m.Blocked(D))
        script.again()
    script.asked()
    assert script.reply(m.Blocked(D)) == (m.Fence(D, "ab" * 16, 3, "app"),)
    script.reply(m.Done(D))
    assert script.reported() is None, "its COMMIT may have got in"
    script.again().asked(m.Record("commit", "app"))
    assert script.commands == (m.ConfirmDurable(D),)


@pytest.mark.parametrize(("retired", "timeline"), [(3, 1), (0, 2)])
def test_last_agent_no_tombstone_where_absence_says_nothing(retired: int, timeline: int) -> None:
    """The epoch is retired, or the shard has failed over: only recovery, which asks all, may conclude."""
    script = Script(last_agent=True).decide()
    script.reply(m.Lost(D))
    script.asked(retired=retired, timeline=timeline)
    assert script.commands == (m.Report(Outcome.UNKNOWN, frozenset({D, P})),)


def test_last_agent_a_gid_that_it_never_made_is_left_to_recovery() -> None:
    script = Script(last_agent=True).decide()
    script.reply(m.Lost(D), m.Connected(D, 1), m.GidsAre(D, ((script.gid(D), "mallory"),)))
    assert script.reported() is Outcome.UNKNOWN


def test_last_agent_overdue_while_the_tombstone_waits() -> None:
    script = Script(last_agent=True).decide()
    script.reply(m.Lost(D))
    script.asked()
    assert script.reply(m.Overdue()) == (m.Report(Outcome.UNKNOWN, frozenset({D, P})),)
    script.reply(m.Done(D))
    assert script.kinds() == ["RollbackPrepared"], "the work goes on behind the client"
