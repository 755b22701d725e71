"""The three that act: the shipped coordinator, resolver and cleaner, each with the commands that it waits for.

A reply is handed in as soon as the server has given it.  That loses no behaviour as long as replies to commands that are under way
at the same time can be taken in any order with the same result (`commute`, which a test asserts on every state that was met):
an actor that learns early can still be late with its next command.  What no other actor can see (a pause, a confirmation, an audit
row) is done at once, and what no later step depends on (words, counters without a limit) is wiped out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from model.names import APP, CLUSTER, EPOCH, TXN, D, gid_of
from model.server import Command, Reply
from shardproxy.twophase import cleanup_messages as c
from shardproxy.twophase import messages as m
from shardproxy.twophase.cleanup import Cleaner
from shardproxy.twophase.coordinator import FENCE_AFTER, Coordinator, Phase, begin
from shardproxy.twophase.evidence import Verdict
from shardproxy.twophase.messages import Outcome
from shardproxy.twophase.recovery import Phase as Resolving
from shardproxy.twophase.recovery import Resolver

ANNOUNCED = 1
"""Event: an audit row says that an acknowledged commit may be lost."""
REPORTED = 2
"""Event: the loss of a part was reported."""
TOLD_COMMIT = 4
TOLD_ERROR = 8
"""Events: the client was told so; 08007 promises nothing, and is no event."""
COMPLETE = 16
"""Event: the coordinator holds it for committed everywhere."""

OPENS_ITS_OWN = (m.Connect, m.CommitPrepared, m.RollbackPrepared)
"""Commands for which a coordinator's driver opens a connection if the old one is gone; of the others' drivers only Connect does."""


@dataclass(frozen=True)
class Pass:
    """A cleaner in the middle of a pass: a generator can't be copied, so it is replayed from the replies that it got.

    Two of them are the same if the generator's frames are.
    """

    frames: str
    history: tuple[tuple[Reply, ...], ...] = field(compare=False)
    expected: tuple[Command, ...] = field(compare=False, default=())
    replies: tuple[Reply, ...] = ()


class Gone(NamedTuple):
    """Nothing will be done here any more: a coordinator that is dead or has finished."""


class Idle(NamedTuple):
    """Between two passes."""


Engine = Coordinator | Resolver | Pass | Gone | Idle


class Actor(NamedTuple):
    """An engine with what it waits for."""

    engine: Engine
    asked: tuple[Command | None, ...]
    """By shard: the command under way."""
    torn: int = 0
    """Bits, by shard: the connections that were open when that server went down."""

    def is_torn(self, shard: int) -> bool:
        """Whether the connection in use there is dead."""
        return bool(self.torn >> shard & 1)

    def tear(self, shard: int) -> Actor:
        """The server went down."""
        return self if isinstance(self.engine, Gone | Idle) else self._replace(torn=self.torn | 1 << shard)

    def mend(self, shard: int) -> Actor:
        """A new connection."""
        return self._replace(torn=self.torn & ~(1 << shard))

    def may_reopen(self, command: Command) -> bool:
        """Whether the driver opens a new connection for this command."""
        return isinstance(command, OPENS_ITS_OWN if isinstance(self.engine, Coordinator) else m.Connect)


Handed = tuple[Actor, int]
"""The actor afterwards, and events."""


def coordinator(shards: int, *, last_agent: bool) -> Actor:
    """A coordinator that has just been told COMMIT."""
    numbers = range(shards)
    state, commands = begin(
        cluster=CLUSTER,
        txn=TXN,
        epoch=EPOCH,
        decision=D,
        timelines=dict.fromkeys(numbers, 1),
        owners=dict.fromkeys(numbers, APP),
        last_agent=last_agent,
    ).start()
    return _asking(Actor(state, (None,) * shards), state, commands)[0]


def resolver(shards: int, *, fence: bool) -> Actor:
    """A recoverer that has found a GID of the transaction, wherever: all of them say the same."""
    state, commands = Resolver(gid_of(D), frozenset(range(shards)), ((gid_of(D), APP),), fence=fence).start()
    return _asking(Actor(state, (None,) * shards), state, commands)[0]


def cleaner(shards: int) -> Actor:
    """A clean-up pass for the decision shard."""
    return _resume((), shards)[0]


def hand_in(actor: Actor, reply: Reply) -> Handed:
    """The engine takes one reply."""
    asked = tuple(None if shard == reply.shard else one for shard, one in enumerate(actor.asked))
    waiting = actor._replace(asked=asked)
    match actor.engine:
        case Coordinator() as engine:
            state, commands = engine.step(reply)  # type: ignore[arg-type]
            return _asking(waiting, state, commands)
        case Resolver() as engine:
            resolving, orders = engine.step(reply)  # type: ignore[arg-type]
            return _asking(waiting, resolving, orders)
        case Pass() as engine:
            return _collect(waiting, engine, reply)
        case _:
            raise AssertionError(f"{actor} has asked nothing")


def _asking(actor: Actor, engine: Coordinator | Resolver, commands: tuple[Command | m.CoordinatorCommand, ...]) -> Handed:
    """Put the commands under way; what nobody else can see is answered at once."""
    actor, events = actor._replace(engine=engine), 0
    if isinstance(engine, Coordinator) and engine.phase in (Phase.FINISH, Phase.ABORT) and engine.reported is None:
        engine, more = engine.step(m.Overdue())  # the client is always answered at the first moment that the protocol allows
        actor, commands = actor._replace(engine=engine), (*commands, *more)
    for command in commands:
        reply: Reply | None = None
        match command:
            case m.Report(outcome):
                events |= {Outcome.COMMITTED: TOLD_COMMIT, Outcome.ABORTED: TOLD_ERROR, Outcome.UNKNOWN: 0}[outcome]
            case m.ReportLoss():
                events |= REPORTED
            case m.Wait(shard):
                reply = m.Elapsed(shard)
            case m.WriteAudit(shard) | m.ConfirmDurable(shard):
                reply = m.Lost(shard) if actor.is_torn(shard) else m.Done(shard)
                events |= ANNOUNCED if isinstance(command, m.WriteAudit) and isinstance(reply, m.Done) else 0
            case _:
                actor = _send(actor, command)
        if reply is not None:
            actor, more_events = hand_in(actor, reply)
            events |= more_events
    if isinstance(engine, Coordinator) and engine.phase is Phase.DONE and engine.reported is Outcome.COMMITTED:
        events |= COMPLETE
    return _settled(actor), events


def _send(actor: Actor, command: Command) -> Actor:
    shard = command.shard
    assert actor.asked[shard] is None, f"{command} while {actor.asked[shard]} is under way"
    if actor.may_reopen(command):
        actor = actor.mend(shard)
    return actor._replace(asked=(*actor.asked[:shard], command, *actor.asked[shard + 1 :]))


# --- wiping out what can't matter any more


def _settled(actor: Actor) -> Actor:
    nothing = actor._replace(asked=(None,) * len(actor.asked), torn=0)
    match actor.engine:
        case Coordinator() as engine:
            return nothing._replace(engine=Gone()) if engine.finished else actor._replace(engine=_brief_coordinator(engine))
        case Resolver() as engine:
            return nothing._replace(engine=Idle()) if engine.verdict else actor._replace(engine=_brief_resolver(engine))
        case _:
            return actor


def _brief_coordinator(engine: Coordinator) -> Coordinator:
    """Attempts set the length of a pause; only in an abort they have a limit, and last agent's session is ended after some."""
    if engine.phase is Phase.ABORT:
        return engine
    attempts = FENCE_AFTER if engine.last_agent and engine.attempts else 0
    return replace(engine, attempts=attempts, participants=tuple(replace(each, attempts=0) for each in engine.participants))


def _brief_resolver(engine: Resolver) -> Resolver:
    """The words of the verdict, and what was seen before it was judged, except for what is still to be acted on."""
    failures = ("failed",) if engine.failures else ()
    if engine.judgement is None or engine.phase in (Resolving.ASK_DECISION, Resolving.ASK_MEMBERS):
        return replace(engine, acted=(), failures=failures, judgement=None)
    words = Verdict(engine.judgement.verdict.transaction_class, "", ())
    views = tuple(replace(view, record=None, retired=0, timeline=0, reason="") for view in engine.views)
    return replace(engine, acted=(), failures=failures, views=views, judgement=replace(engine.judgement, verdict=words))


# --- the cleaner


def _collect(actor: Actor, engine: Pass, reply: Reply) -> Handed:
    replies = tuple(sorted((*engine.replies, reply), key=lambda each: each.shard))
    if len(replies) < len(engine.expected):
        return actor._replace(engine=replace(engine, replies=replies)), 0
    order = {each.shard: each for each in replies}
    batch = tuple(order[command.shard] for command in engine.expected)
    return _resume((*engine.history, batch), len(actor.asked), actor.torn)


def _resume(history: tuple[tuple[Reply, ...], ...], shards: int, torn: int = 0) -> Handed:
    cleaning = Cleaner(D, frozenset(range(shards)))
    exchange: Any = cleaning.run()
    commands: tuple[Command, ...] = next(exchange)
    for replies in history:
        try:
            commands = exchange.send(replies)
        except StopIteration:
            return Actor(Idle(), (None,) * shards), 0
    engine = Pass("; ".join(_frames(cleaning, exchange)), history, commands)
    actor = Actor(engine, (None,) * shards, torn)
    events = 0
    for command in commands:
        if isinstance(command, c.WriteLoss):
            events |= REPORTED
            actor, more = hand_in(actor, m.Lost(command.shard) if actor.is_torn(command.shard) else m.Done(command.shard))
            events |= more
        else:
            actor = _send(actor, command)
    return actor, events


def _frames(cleaning: Cleaner, exchange: Any) -> Iterator[str]:
    """Where each generator stands and what it knows; the cleaner's findings are words that no step depends on."""
    yield f"{cleaning._unreached} {bool(cleaning.held)}"
    while exchange is not None and getattr(exchange, "gi_frame", None) is not None:
        frame = exchange.gi_frame
        known = {name: value for name, value in frame.f_locals.items() if name not in ("self", "kinds")}
        yield f"{frame.f_code.co_name}:{frame.f_lasti}:{sorted(known.items())!r}"
        exchange = exchange.gi_yieldfrom


# --- the check behind handing in at once


def commute(actor: Actor, one: Reply, other: Reply) -> bool:
    """Whether two replies to commands that are under way together can be taken in either order with the same result."""
    first, second = hand_in(actor, one), hand_in(actor, other)
    if any(isinstance(each[0].engine, Gone | Idle) for each in (first, second)):
        return False
    a, events_a = hand_in(first[0], other)
    b, events_b = hand_in(second[0], one)
    return (a, first[1] | events_a) == (b, second[1] | events_b)
