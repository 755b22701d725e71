"""The shipped engine on shards in memory: one transaction, one coordinator, two recoverers, and a scheduler that is out for trouble.

Every command and every reply is an event of its own; a seed decides in which order they happen, what is lost, who dies, who
forges a record and whether the decision shard fails over.  In the end recovery runs alone until nothing is prepared, and
`Run.violations` says which invariant of docs/commit-protocol.md did not hold.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

from shardproxy.backend.connection import QueryResult
from shardproxy.errors import SqlError
from shardproxy.query.commit import Commit
from shardproxy.twophase import messages as m
from shardproxy.twophase.coordinator import Coordinator, begin
from shardproxy.twophase.gid import Gid
from shardproxy.twophase.messages import Outcome, Record
from shardproxy.twophase.recovery import Resolver

TXN, CLUSTER, D = "ab" * 16, "00c0ffee00c0ffee", 0
TAGS = ["SAVEPOINT", "RELEASE", "SET", "SET CONSTRAINTS", "SET", "INSERT 0 1"]


@dataclass
class Shard:
    """What one server has made durable, and what is still open there."""

    number: int
    timeline: int = 1
    reachable: bool = True
    open: str = "T"
    """The client's transaction: T, E (a statement has failed), `recorded` (last agent: between record and COMMIT), `ended` (its session
    was), or nothing."""
    gid: Gid | None = None
    record: Record | None = None
    committed: bool = False
    lost: bool = False
    """It has forgotten something that it had acknowledged."""

    def prepare(self, gid: Gid) -> QueryResult:
        """Step 1's message, and what the server says to it."""
        state, self.open = self.open, ""
        if state == "E":
            return QueryResult(tags=["ROLLBACK"], status="I")
        if state != "T":
            return QueryResult(error=SqlError("25P01", "no transaction"), status="I")
        if self.record is not None:
            self.open = "E"
            return QueryResult(error=SqlError("23505", "duplicate key", schema="pgshepherd", table="commit_record"), status="E")
        self.gid = gid
        return QueryResult(tags=[*TAGS, "PREPARE TRANSACTION"], status="I")

    def commit_last(self) -> QueryResult:
        """Last agent's message, and what the server says to it."""
        state, self.open = self.open, ""
        if state == "E":
            self.open = "E"
            return QueryResult(error=SqlError("25P02", "current transaction is aborted"), status="E")
        if state not in ("T", "recorded"):
            return QueryResult(error=SqlError("25P01", "no transaction"), status="I")
        if self.record is not None:
            self.open = "E"
            return QueryResult(error=SqlError("23505", "duplicate key", schema="pgshepherd", table="commit_record"), status="E")
        self.record, self.committed = Record("commit", "app"), True
        return QueryResult(tags=[*TAGS, "COMMIT"], status="I")

    def bury(self, *, fenced: bool) -> m.Reply:
        """The tombstone, and the fence that makes way for it."""
        if fenced and self.open == "recorded":
            self.open = "ended"
        if self.gid is not None or self.open == "recorded":
            return m.Blocked(self.number)  # by the record inside the prepared or the open transaction
        written = self.record is None
        self.record = self.record or Record("abort", "recovery")
        return m.Done(self.number) if written or fenced else m.NotInserted(self.number)

    def end(self, *, commit: bool) -> bool:
        """COMMIT or ROLLBACK PREPARED; False for 42704."""
        if self.gid is None:
            return False
        self.gid = None
        if commit:
            self.record, self.committed = Record("commit", "app"), True
        return True


@dataclass
class _Asked:
    """A command under way, or its reply."""

    who: int
    command: m.CoordinatorCommand | m.RecoveryCommand
    reply: m.Reply | None = None


@dataclass
class Run:
    """One schedule."""

    seed: int
    participants: int = 2
    last_agent: bool = False
    told: Outcome | None = None
    announced: bool = False
    """Recovery has said that something may be lost."""
    trace: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.shards = [Shard(number) for number in range(self.participants)]
        chance = self.random.random
        self.failover, self.forger, self.deaf = chance() < 0.3, chance() < 0.15, chance() < 0.2
        self.slow = chance() < 0.3  # the coordinator lags behind the recoverers
        if chance() < 0.1:
            self.random.choice(self.shards).open = "E"
        self.coordinator: Coordinator | None = None
        self.resolvers: dict[int, Resolver] = {}
        self.events: list[_Asked] = []
        self.connected: dict[tuple[int, int], int] = {}
        """The timeline that a recoverer's or coordinator's checked connection has shown: it ends with a failover."""

    # --- the world

    def play(self) -> Run:
        """Everything at once for a while, then recovery alone, on shards that can all be reached."""
        numbers = range(self.participants)
        state = begin(
            cluster=CLUSTER,
            txn=TXN,
            epoch=3,
            decision=D,
            timelines=dict.fromkeys(numbers, 1),
            owners=dict.fromkeys(numbers, "app"),
            last_agent=self.last_agent,
        )
        self.coordinator, commands = state.start()
        self._ask(0, commands)
        for _ in range(self.random.randint(5, 120)):
            self._turn()
        self._coordinator_dies()
        for shard in self.shards:
            shard.reachable = True
        self.events.clear()
        self.resolvers.clear()
        for _ in range(400):
            if not self.resolvers and not any(self._seen()):
                break
            self._start_recoverer(1)
            self._event(calm=True)
        return self

    def _turn(self) -> None:
        chance = self.random.random()
        failed_over = self.shards[D].timeline > 1
        ripe = 0.3 if self.shards[D].committed else 0.05 if self.shards[D].gid is not None else 0.0
        if self.failover and chance < ripe:
            self._fail_over()
        elif chance < (0.2 if failed_over else 0.05):
            self._start_recoverer(self.random.choice((1, 2)))
        elif chance < 0.06:
            self._coordinator_dies()
        elif chance < 0.07 and self.failover:
            self._fail_over()
        elif chance < 0.09 and self.forger and self.shards[D].record is None and self.shards[D].gid is None:
            self.forger, self.shards[D].record = False, Record("commit", "mallory")
            self._note("mallory inserts a commit record on the decision shard")
        elif chance < 0.11 and self.deaf:
            shard = self.random.choice(self.shards)
            shard.reachable = not shard.reachable
        else:
            self._event()

    def _event(self, *, calm: bool = False) -> None:
        """Run one command, or hand in one reply; which one, nobody knows."""
        if not self.events:
            return
        recoverers = [index for index, each in enumerate(self.events) if each.who > 0]
        slow = self.slow and recoverers and self.random.random() < 0.9
        asked = self.events.pop(self.random.choice(recoverers) if slow else self.random.randrange(len(self.events)))
        late = self.last_agent and asked.who < 0 and not calm and self.random.random() < 0.8
        if late:
            self.events.append(asked)
        elif asked.reply is None:
            self._execute(asked, 1.0 if calm else self.random.random())
        else:
            self._hand_in(asked.who, asked.reply)

    def _execute(self, asked: _Asked, luck: float) -> None:
        """Done and answered, done and the answer lost, or never arrived; what was lost on its way may also be done later."""
        command = asked.command
        assert not isinstance(command, m.Report), "told to the client, and not to a shard"
        shard = command.shard
        lost = m.Lost(shard)
        if luck < 0.04 or not self.shards[shard].reachable:
            unreached = m.Unreachable(shard, "away") if isinstance(command, m.Connect) else lost
            self.events.append(_Asked(asked.who, command, unreached))
            if isinstance(command, m.Prepare | m.CommitLast | m.CommitPrepared) and luck < 0.02:
                self.events.append(_Asked(-1, command))
            return
        if isinstance(command, m.CommitLast) and self.shards[shard].open == "T" and not self.shards[shard].record and luck < 0.5:
            self.shards[shard].open = "recorded"
            self.events.append(asked)
            return
        reply = self._reply(asked.who, command, self.shards[shard])
        self._note(f"{asked.who or 'coordinator'}: {type(command).__name__} on {shard}: {type(reply).__name__}")
        if luck < 0.08 and not isinstance(reply, m.Elapsed):
            reply = m.Unreachable(shard, "away") if isinstance(command, m.Connect) else lost
        self.events.append(_Asked(asked.who, command, reply))

    def _reply(self, who: int, command: m.CoordinatorCommand | m.RecoveryCommand, shard: Shard) -> m.Reply:
        number = shard.number
        if isinstance(command, m.Connect):
            self.connected[who, number] = shard.timeline
            return m.Connected(number, shard.timeline)
        if isinstance(command, m.Prepare | m.CommitLast) and (shard.timeline > 1 or shard.open == "ended"):
            return m.Lost(number)
        if isinstance(command, m.CommitLast):
            judge_last = cast("Callable[[object, int, QueryResult], m.Reply]", Commit._judge_last)
            return judge_last(_Silent(), number, shard.commit_last())
        if isinstance(command, m.Prepare):
            judge = cast("Callable[[object, int, QueryResult], m.Reply]", Commit._judge_prepare)
            return judge(_Silent(), number, shard.prepare(self._gid(number)))
        finishes = who <= 0 and isinstance(command, m.CommitPrepared | m.RollbackPrepared)
        if not finishes and self.connected.get((who, number), shard.timeline) != shard.timeline:
            return m.Lost(number)
        return self._on_shard(command, shard)

    def _on_shard(self, command: m.CoordinatorCommand | m.RecoveryCommand, shard: Shard) -> m.Reply:
        number = shard.number
        match command:
            case m.Rollback():
                shard.open = ""
                return m.Done(number)
            case m.CommitPrepared(_, _, timeline) if timeline not in (None, shard.timeline):
                return m.Lost(number)
            case m.CommitPrepared():
                return m.Done(number) if shard.end(commit=True) else m.Gone(number)
            case m.RollbackPrepared():
                return m.Done(number) if shard.end(commit=False) else m.Gone(number)
            case m.ReadGids():
                return m.GidsAre(number, ((shard.gid, "app"),) if shard.gid is not None else ())
            case m.ReadRecord():
                return m.RecordIs(number, shard.record, 0)
            case m.WriteTombstone() | m.Fence():
                return shard.bury(fenced=isinstance(command, m.Fence))
            case m.WriteAudit():
                self.announced = True
                return m.Done(number)
            case m.Wait():
                return m.Elapsed(number)
            case _:
                return m.Done(number)

    def _gid(self, number: int) -> Gid:
        return Gid(CLUSTER, TXN, 3, 1, 1, D, number)

    def _fail_over(self) -> None:
        """The decision shard's standby takes over; it had not yet got the last COMMIT PREPARED, perhaps not even the PREPARE."""
        shard, self.failover = self.shards[D], False
        shard.timeline, shard.open = 2, ""
        if shard.committed and self.random.random() < 0.8:
            shard.committed, shard.record, shard.lost = False, None, True
            shard.gid = None if self.last_agent else self._gid(D)
        self._note(f"failover of the decision shard{', its commit lost' if shard.lost else ''}")

    # --- those who act

    def _ask(self, who: int, commands: tuple[m.CoordinatorCommand, ...] | tuple[m.RecoveryCommand, ...]) -> None:
        for command in commands:
            if isinstance(command, m.Report):
                self.told = command.outcome
                self._note(f"the client is told {command.outcome.value}")
            elif not isinstance(command, m.ReportLoss):
                self.events.append(_Asked(who, command))

    def _hand_in(self, who: int, reply: m.Reply) -> None:
        if who == 0 and self.coordinator is not None and not self.coordinator.finished:
            self.coordinator, commands = self.coordinator.step(reply)
            self._ask(0, commands)
        elif who in self.resolvers:
            state, asked = self.resolvers[who].step(reply)
            self.resolvers[who] = state
            self._ask(who, asked)
            if state.verdict is not None:
                self._note(f"{who}: {state.verdict.transaction_class.value}: {state.verdict.reason} {state.verdict.acted}")
                del self.resolvers[who]

    def _coordinator_dies(self) -> None:
        """What it had sent may still arrive; what was open is rolled back by the servers."""
        if self.coordinator is None:
            return
        self._note("the coordinator dies")
        self.coordinator = None
        self.events = [replace(each, who=-1) if each.who == 0 else each for each in self.events if each.who or each.reply is None]
        if not any(isinstance(each.command, m.Prepare | m.CommitLast) for each in self.events):
            for shard in self.shards:
                shard.open = ""

    def _seen(self) -> list[tuple[Gid, str]]:
        return [(shard.gid, "app") for shard in self.shards if shard.gid is not None and shard.reachable]

    def _start_recoverer(self, who: int) -> None:
        seen = self._seen()
        if who in self.resolvers or not seen:
            return
        state, commands = Resolver(seen[0][0], frozenset(range(self.participants)), tuple(seen), fence=self.last_agent).start()
        self.resolvers[who] = state
        self._ask(who, commands)

    def _note(self, text: str) -> None:
        self.trace.append(text)

    # --- the judge

    def violations(self) -> list[str]:
        """Which invariants did not hold; a loss that was announced, and what a forger brought about, are exceptions of the text."""
        wrong = []
        outcomes = {shard.committed for shard in self.shards}
        forged = any(shard.record is not None and shard.record.who == "mallory" for shard in self.shards)
        lost = self.shards[D].lost
        excused = lost and (self.last_agent or (self.announced and self.participants > 2))  # two can always be made to agree
        if len(outcomes) > 1 and not excused:
            wrong.append("invariant 1: the shards disagree")
        if self.told is Outcome.COMMITTED and outcomes != {True} and not (lost and (self.announced or self.last_agent)):
            wrong.append("invariant 2: the client was told COMMIT")
        if self.told is Outcome.ABORTED and outcomes != {False}:
            wrong.append("invariant 2: the client was told that it failed")
        if any(shard.gid is not None for shard in self.shards) and not forged:
            wrong.append("invariant 6: not resolved")
        return wrong


class _Silent:
    """Stands for a Commit where only its judgement of a reply is wanted."""

    def _blame(self, error: SqlError) -> None:
        """Nobody is told."""
