"""All states that the coordinator, the recoverers, the clean-up and the servers can be in together, and every step between them.

A connection is opened when it is first used: it has shown nothing but its timeline, and if the server goes down in between, the
command that waits for it may be answered as lost.

A state is a flat tuple of small numbers, each the number of an actor, a server, a set of late commands, ... in a table: two steps
that look alike to actor and server are worked out once.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from model import actors
from model.actors import Actor, Gone, Idle
from model.names import EPOCH, D
from model.server import Command, Durable, Reply, Row, Server, Session, execute
from shardproxy.twophase import messages as m
from shardproxy.twophase.cleanup_messages import CheckOpenTransactions, CheckReplayed

T = TypeVar("T", bound=Hashable)
State = tuple[int, ...]


class Faults(NamedTuple):
    """How many faults of each kind may still happen."""

    lost: int = 0
    """A link is lost: the command is done, or will be done late, or never; its sender can't know."""
    dies: int = 0
    """The coordinator is killed; its servers notice at some time."""
    crash: int = 0
    """A server restarts."""
    failover: frozenset[int] = frozenset()
    """Shards whose standby may take over, once each, without what it had not yet got."""
    forged: int = 0
    """Somebody inserts a commit record of his own on the decision shard."""


@dataclass(frozen=True)
class Scenario:
    """Who takes part, and what may go wrong."""

    shards: int = 2
    recoverers: int = 1
    cleaner: bool = False
    faults: Faults = field(default_factory=Faults)
    failed: bool = False
    """Also begin with a transaction in which a statement has failed, on any one shard."""
    behind: int = 0
    """By how many the coordinator's epoch is behind; by 2, its transactions began after the last rise."""
    last_agent: bool = False
    """The decision shard is not prepared; recoverers end a session that keeps the tombstone waiting."""
    replicated: bool = False
    """Synchronous standbys: what was answered is never forgotten."""
    blind: bool = False
    """The clean-up can't see how far the standbys are."""


class Table(Generic[T]):
    """Numbers for values."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self._numbers: dict[T, int] = {}

    def number(self, value: T) -> int:
        """The same for equal values."""
        found = self._numbers.get(value)
        if found is None:
            found = self._numbers[value] = len(self.values)
            self.values.append(value)
        return found


class Move(NamedTuple):
    """One step, for traces; `fault` = not part of a fault-free run."""

    what: str
    who: int = -1
    shard: int = -1
    fault: bool = False


class World:
    """One scenario's states and steps."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.shards = scenario.shards
        self.actors: Table[Actor] = Table()
        self.servers: Table[Server] = Table()
        self.late: Table[tuple[Command, ...]] = Table()
        self.faults: Table[Faults] = Table()
        self.first_server = 1 + scenario.recoverers + 1
        self.at_late = self.first_server + self.shards
        self.at_events, self.at_faults = self.at_late + 1, self.at_late + 2
        self._idle = self.actors.number(Actor(Idle(), (None,) * self.shards))
        self._dead = self.actors.number(Actor(Gone(), (None,) * self.shards))
        self._resolver = self.actors.number(actors.resolver(self.shards, fence=scenario.last_agent))
        self._cleaner = self.actors.number(actors.cleaner(self.shards)) if scenario.cleaner else self._idle
        self._steps: dict[tuple[int, int, int], tuple[tuple[int, int, int], ...]] = {}
        self._replies: dict[tuple[int, Reply], tuple[int, int]] = {}
        self._pending: dict[int, tuple[tuple[int, bool], ...]] = {}
        self.replies: dict[int, dict[int, set[Reply]]] = {}

    # --- states

    def initial(self) -> list[State]:
        """Every transaction as it is when COMMIT arrives."""
        durable = Durable(epoch=EPOCH + self.scenario.behind)
        exposed = self.scenario.faults.failover
        servers = [Server(past=(durable,), standby=number in exposed) for number in range(self.shards)]
        failing = range(self.shards) if self.scenario.failed else ()
        starts = [servers, *([*servers[:at], servers[at]._replace(session=Session.FAILED), *servers[at + 1 :]] for at in failing)]
        acting = [
            self.actors.number(actors.coordinator(self.shards, last_agent=self.scenario.last_agent)),
            *[self._idle] * (self.scenario.recoverers + 1),
        ]
        rest = [self.late.number(()), 0, self.faults.number(self.scenario.faults)]
        return [(*acting, *(self.servers.number(each) for each in each_start), *rest) for each_start in starts]

    def server(self, state: State, shard: int) -> Server:
        """One server of a state."""
        return self.servers.values[state[self.first_server + shard]]

    def servers_of(self, state: State) -> list[Server]:
        """All of them."""
        return [self.servers.values[number] for number in state[self.first_server : self.at_late]]

    def coordinator_of(self, state: State) -> Actor:
        """The coordinator with what it waits for."""
        return self.actors.values[state[0]]

    def quiet(self, state: State) -> bool:
        """Nobody does anything, and nothing is on its way."""
        everybody = all(number == self._idle for number in state[1 : self.first_server])
        return everybody and state[0] == self._dead and not self.late.values[state[self.at_late]]

    # --- steps, those of a fault-free run first, in the order in which `progress` takes them

    def moves(self, state: State) -> Iterator[tuple[Move, State]]:
        """Everything that can happen next."""
        yield from self._late_moves(state)
        for who in range(self.first_server):
            yield from self._actor_moves(state, who)
        yield from self._closings(state)
        yield from self._starts(state)
        yield from self._busy(state)
        yield from self._fault_moves(state)

    def _actor_moves(self, state: State, who: int) -> Iterator[tuple[Move, State]]:
        number = state[who]
        for shard, _ in self._pending_of(number):
            at = self.first_server + shard
            for actor, server, events in self._outcomes(number, shard, state[at]):
                after = list(state)
                after[who], after[at] = actor, server
                after[self.at_events] |= events
                yield Move("step", who, shard), self._sorted(after)

    def _sorted(self, after: list[int]) -> State:
        """Recoverers have no names."""
        if self.scenario.recoverers > 1:
            after[1 : self.first_server - 1] = sorted(after[1 : self.first_server - 1])
        return tuple(after)

    def _pending_of(self, number: int) -> tuple[tuple[int, bool], ...]:
        """The shards that were asked, and whether COMMIT or ROLLBACK PREPARED is under way there."""
        found = self._pending.get(number)
        if found is None:
            asked = self.actors.values[number].asked
            found = self._pending[number] = tuple(
                (shard, isinstance(one, m.CommitPrepared | m.RollbackPrepared)) for shard, one in enumerate(asked) if one
            )
        return found

    def _outcomes(self, number: int, shard: int, server_number: int) -> tuple[tuple[int, int, int], ...]:
        key = (number, shard, server_number)
        found = self._steps.get(key)
        if found is None:
            found = self._steps[key] = tuple(dict.fromkeys(self._work_out(self.actors.values[number], shard, server_number)))
        return found

    def _work_out(self, actor: Actor, shard: int, server_number: int) -> Iterator[tuple[int, int, int]]:
        command = actor.asked[shard]
        assert command is not None
        server = self.servers.values[server_number]
        if not actor.is_torn(shard) or actor.may_reopen(command):
            fresh = actor.mend(shard)
            reply, then = self.execute(server, command)
            if reply is None:
                yield self.actors.number(fresh), self.servers.number(then), 0
            else:
                yield self._handed(fresh, reply, then)
        if actor.is_torn(shard):
            yield self._handed(actor, lost(command), server)

    def _handed(self, actor: Actor, reply: Reply, server: Server) -> tuple[int, int, int]:
        self.replies.setdefault(self.actors.number(actor), {}).setdefault(reply.shard, set()).add(reply)
        then, events = actors.hand_in(actor, reply)
        if isinstance(reply, m.Connected) and isinstance(then.asked[reply.shard], m.ReadGids):
            return self._handed(then, self.execute(server, m.ReadGids(reply.shard))[0] or reply, server)
        return self.actors.number(then), self.servers.number(server), events

    def execute(self, server: Server, command: Command) -> tuple[Reply | None, Server]:
        """What the server does; what it has answered is replicated, where standbys are synchronous."""
        if self.scenario.blind and isinstance(command, CheckReplayed):
            return m.Done(command.shard), server
        if self.scenario.behind > 1 and isinstance(command, CheckOpenTransactions):
            return m.Done(command.shard), server
        reply, then = execute(server, command, tuple(range(self.shards)))
        return reply, then.replicated() if self.scenario.replicated and reply is not None else then

    def _late_moves(self, state: State) -> Iterator[tuple[Move, State]]:
        """What was lost on its way is done after all, or never."""
        late = self.late.values[state[self.at_late]]
        for index, command in enumerate(late):
            at = self.first_server + command.shard
            rest = self.late.number((*late[:index], *late[index + 1 :]))
            reply, server = execute(self.servers.values[state[at]], command, tuple(range(self.shards)))
            if not (isinstance(command, m.Prepare | m.CommitLast) and self.servers.values[state[at]].session is Session.RECORDED):
                yield Move("never", shard=command.shard), self._with(state, {self.at_late: rest})
            changed = {at: self.servers.number(server), self.at_late: state[self.at_late] if reply is None else rest}
            yield Move("late", shard=command.shard), self._with(state, changed)

    def _with(self, state: State, changes: dict[int, int]) -> State:
        after = list(state)
        for at, value in changes.items():
            after[at] = value
        return self._sorted(after)

    def _starts(self, state: State) -> Iterator[tuple[Move, State]]:
        """A recoverer has seen a GID; a clean-up finds that there is something for it to do."""
        servers = self.servers_of(state)
        if any(server.now.prepared for server in servers):
            for who in range(1, self.first_server - 1):
                if state[who] == self._idle:
                    yield Move("start", who), self._with(state, {who: self._resolver})
                    break
        if self.scenario.cleaner and state[self.first_server - 1] == self._idle and self._unclean(servers):
            yield Move("start", self.first_server - 1), self._with(state, {self.first_server - 1: self._cleaner})

    @staticmethod
    def _unclean(servers: list[Server]) -> bool:
        decision = servers[D]
        if any(server.now.row is not Row.NONE for server in servers):
            return True
        return decision.now.compared != decision.timeline or decision.now.retired < EPOCH

    def _busy(self, state: State) -> Iterator[tuple[Move, State]]:
        """COMMIT or ROLLBACK PREPARED while another one is under way there."""
        users = [
            (who, shard) for who in range(self.first_server) for shard, finishing in self._pending_of(state[who]) if finishing
        ]
        late = [
            each.shard
            for each in self.late.values[state[self.at_late]]
            if isinstance(each, m.CommitPrepared | m.RollbackPrepared)
        ]
        shards = [shard for _, shard in users] + late
        for who, shard in users:
            if shards.count(shard) > 1 and self.server(state, shard).now.prepared:
                yield Move("busy", who, shard), self._replied(state, who, m.Failed(shard, "55000"))

    def _replied(self, state: State, who: int, reply: Reply) -> State:
        key = (state[who], reply)
        found = self._replies.get(key)
        if found is None:
            then, events = actors.hand_in(self.actors.values[state[who]], reply)
            found = self._replies[key] = (self.actors.number(then), events)
        return self._with(state, {who: found[0], self.at_events: state[self.at_events] | found[1]})

    def _closings(self, state: State) -> Iterator[tuple[Move, State]]:
        """A server notices that its client is gone."""
        late = self.late.values[state[self.at_late]]
        using = {shard for shard, _ in self._pending_of(state[0])}
        for shard, server in enumerate(self.servers_of(state)):
            if server.session is not Session.NONE and (shard not in using or not _in_session(self.coordinator_of(state), shard)):
                rest = tuple(each for each in late if not (isinstance(each, m.Prepare | m.CommitLast) and each.shard == shard))
                closed = self.servers.number(server._replace(session=Session.NONE))
                changes = {self.first_server + shard: closed, self.at_late: self.late.number(rest)}
                yield Move("closed", shard=shard), self._with(state, changes)

    # --- faults

    def _fault_moves(self, state: State) -> Iterator[tuple[Move, State]]:
        faults = self.faults.values[state[self.at_faults]]
        if faults.lost:
            yield from self._losses(state, faults._replace(lost=faults.lost - 1))
        if faults.dies and state[0] != self._dead:
            yield Move("dies", 0, fault=True), self._dies(state, faults._replace(dies=faults.dies - 1))
        if faults.crash:
            left = faults._replace(crash=faults.crash - 1)
            for shard, server in enumerate(self.servers_of(state)):
                yield Move("crash", shard=shard, fault=True), self._down(state, shard, server.crashed(), left)
        for shard in faults.failover:
            left = faults._replace(failover=faults.failover - {shard})
            for server in self.server(state, shard).failovers():
                yield Move("failover", shard=shard, fault=True), self._down(state, shard, server, left)
        server = self.server(state, D)
        if faults.forged and server.now.row is Row.NONE and not server.now.prepared and server.session is not Session.RECORDED:
            forged = self.servers.number(server.write(row=Row.FORGED))
            spent = self.faults.number(faults._replace(forged=0))
            yield Move("forged", shard=D, fault=True), self._with(state, {self.first_server + D: forged, self.at_faults: spent})

    def _losses(self, state: State, left: Faults) -> Iterator[tuple[Move, State]]:
        for who in range(self.first_server):
            for shard, _ in self._pending_of(state[who]):
                actor = self.actors.values[state[who]]
                command = actor.asked[shard]
                assert command is not None
                changes = {self.at_faults: self.faults.number(left), self.at_late: self._also(state, actor, [command])}
                yield Move("lost", who, shard, fault=True), self._replied(self._with(state, changes), who, lost(command))

    def _also(self, state: State, actor: Actor, commands: list[Command]) -> int:
        """These commands of this actor are on their way without it; what can only be read does not matter any more."""
        sent = (each for each in commands if not actor.is_torn(each.shard) or actor.may_reopen(each))
        late = (*self.late.values[state[self.at_late]], *(each for each in sent if not isinstance(each, READS)))
        return self.late.number(tuple(sorted(late, key=repr)))

    def _dies(self, state: State, left: Faults) -> State:
        actor = self.coordinator_of(state)
        late = self._also(state, actor, [each for each in actor.asked if each])
        return self._with(state, {0: self._dead, self.at_late: late, self.at_faults: self.faults.number(left)})

    def _down(self, state: State, shard: int, server: Server, left: Faults) -> State:
        """Connections break, late commands to it are no more; who waits for it does not know yet."""
        changes = {who: self.actors.number(self.actors.values[state[who]].tear(shard)) for who in range(self.first_server)}
        late = tuple(each for each in self.late.values[state[self.at_late]] if each.shard != shard)
        changes[self.at_late] = self.late.number(late)
        changes[self.first_server + shard] = self.servers.number(server)
        return self._with(state, changes | {self.at_faults: self.faults.number(left)})


READS = (m.Connect, m.ReadGids, m.ReadRecord)


def lost(command: Command) -> Reply:
    """What a driver says that can't know."""
    return m.Unreachable(command.shard, "away") if isinstance(command, m.Connect) else m.Lost(command.shard, "lost")


def _in_session(coordinator: Actor, shard: int) -> bool:
    return isinstance(coordinator.asked[shard], m.Prepare | m.CommitLast | m.Rollback | m.CloseReader)
