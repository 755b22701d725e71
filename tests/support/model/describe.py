"""A step of the model in words, for traces."""

from __future__ import annotations

from model.actors import ANNOUNCED, COMPLETE, REPORTED, TOLD_COMMIT, TOLD_ERROR
from model.server import Command, Lost, Server
from model.world import Move, State, World
from shardproxy.twophase import messages as m

_EVENTS = {
    ANNOUNCED: "announced that a commit may be lost",
    REPORTED: "reported a loss",
    TOLD_COMMIT: "the client is told COMMIT",
    TOLD_ERROR: "the client is told an error",
    COMPLETE: "the coordinator holds it for committed everywhere",
}


def describe(world: World, before: State, move: Move, after: State) -> str:
    """One line."""
    name = "coordinator" if move.who == 0 else "clean-up" if move.who == world.first_server - 1 else f"recoverer {move.who}"
    what = {
        "step": "{name}: {command}",
        "busy": "{name}: {command} meets another one at work (55000)",
        "lost": "LOST: {name} loses the link with {command}",
        "dies": "DIES: the coordinator",
        "start": "{name} begins a pass",
        "late": "late, shard {shard}: a command that was lost is done after all",
        "never": "a command to shard {shard} that was lost is never done",
        "closed": "shard {shard} ends the session of a client that is gone",
        "crash": "CRASH: shard {shard}",
        "failover": "FAILOVER: shard {shard}",
        "forged": "FORGED: somebody inserts a commit record on shard {shard}",
    }[move.what]
    asked = world.actors.values[before[move.who]].asked[move.shard] if move.what in ("step", "busy", "lost") else None
    line = what.format(name=name, shard=move.shard, command=_say(asked))
    return "; ".join([line, *_changes(world, before, after)])


def _say(command: Command | None) -> str:
    if command is None:
        return ""
    tail = f" on timeline {command.timeline}" if isinstance(command, m.CommitPrepared) and command.timeline else ""
    return f"{type(command).__name__} on shard {command.shard}{tail}"


def _changes(world: World, before: State, after: State) -> list[str]:
    lines = []
    for shard in range(world.shards):
        old, new = world.server(before, shard), world.server(after, shard)
        if old != new and (change := _change(old, new)):
            lines.append(f"shard {shard}: {change}")
    events = after[world.at_events] & ~before[world.at_events]
    return [*lines, *(text for event, text in _EVENTS.items() if events & event)]


def _change(old: Server, new: Server) -> str:
    changed = [f"timeline {new.timeline}"] if new.timeline != old.timeline else []
    if new.session != old.session:
        changed.append(f"session {new.session.name.lower()}")
    for name, value in new.now._asdict().items():
        if value != getattr(old.now, name):
            changed.append(f"{name} {getattr(value, 'name', str(value)).lower()}")
    if new.lost != old.lost:
        changed.append(f"it has lost {' and '.join(each.name.lower() for each in Lost if each.name and each & new.lost)}")
    return ", ".join(changed)
