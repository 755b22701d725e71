"""The invariants of docs/commit-protocol.md, for one state of the model: words if one does not hold.

The exception of the text is taken as narrowly as it can be: a loss excuses only the shard that lost something, only what can't be
repaired from what the others still have, and in the end only if it was reported.
"""

from __future__ import annotations

from model.actors import ANNOUNCED, COMPLETE, REPORTED, TOLD_COMMIT, TOLD_ERROR
from model.names import EPOCH, D
from model.server import Data, Lost, Row, Server
from model.world import State, World


def violation(world: World, state: State) -> str:
    """In every state, on the way too."""
    servers, events = world.servers_of(state), state[world.at_events]
    wrong = _split(servers, events) or _told(servers, events) or _believed(servers, events)
    if events & REPORTED and not any(server.lost for server in servers):
        wrong = wrong or "a loss is reported that never was"
    if not wrong and world.quiet(state) and not any(server.now.prepared for server in servers):
        wrong = _silent(world, servers, events)
    if wrong and world.scenario.replicated:
        return f"{wrong} (standbys are synchronous)"
    return wrong


def _split(servers: list[Server], events: int) -> str:
    """Whoever commits finds every other part prepared or committed: that is what no two shards ending differently means on the way."""
    if any(server.now.committed is Data.EMPTY for server in servers):
        return "invariant 2: a transaction was committed without the client's writes"
    if not any(server.now.committed for server in servers):
        return ""
    if servers[D].lost & Lost.COMMIT and events & ANNOUNCED and (len(servers) > 2 or _lossy(servers) > 1):
        return ""  # rolled back while D had forgotten the decision, and before another one showed it, or after that forgot it too
    for number, server in enumerate(servers):
        if server.now.committed or server.now.prepared or server.lost & Lost.PART:
            continue
        return f"invariant 1: committed on some shard, and neither prepared nor committed on shard {number}"
    return ""


def _lossy(servers: list[Server]) -> int:
    return sum(bool(server.lost) for server in servers)


def _told(servers: list[Server], events: int) -> str:
    if events & TOLD_ERROR and any(server.now.committed for server in servers):
        return "invariant 2: the client was told that it failed, and it is committed"
    if events & TOLD_COMMIT and not servers[D].now.committed and not servers[D].lost & Lost.COMMIT:
        return "invariant 2: the client was told COMMIT, and it is not committed"
    return ""


def _believed(servers: list[Server], events: int) -> str:
    """What the coordinator holds for committed was committed, or is reported as lost, or the decision itself was lost."""
    if not events & COMPLETE or events & REPORTED or servers[D].lost & Lost.COMMIT or servers[D].now.retired >= EPOCH:
        return ""
    for number, server in enumerate(servers):
        if not server.now.committed and not server.lost & Lost.COMMIT:
            return f"step 4: the coordinator takes shard {number} for committed without having seen it"
    return ""


def _silent(world: World, servers: list[Server], events: int) -> str:
    """At rest: what was lost was told, or its traces wait for the clean-up to find them."""
    committed = [bool(server.now.committed) for server in servers]
    if events & TOLD_COMMIT and not any(committed):
        nothing_left = all(server.lost & Lost.PART for server in servers)
        if not events & (ANNOUNCED | REPORTED) and not nothing_left:
            return "invariant 2: an acknowledged commit was lost, and nobody was told"
    sees = world.scenario.cleaner and not world.scenario.blind
    cleaned = sees and not any(server.now.row in (Row.COMMIT, Row.FORGED) for server in servers)
    if cleaned and any(committed) and not all(committed) and not events & (ANNOUNCED | REPORTED):
        return "invariant 1: shards end differently after a loss, nobody was told, and the traces are gone"
    return ""


def unresolved(world: World, state: State) -> str:
    """Where nothing more happens by itself: what is left."""
    servers = world.servers_of(state)
    if any(server.now.prepared for server in servers):
        return "a part stays prepared"
    if any(server.session for server in servers):
        return "a transaction stays open"
    return "" if world.quiet(state) else "somebody waits for ever"


def excused(world: World, state: State) -> bool:
    """A doubt for ever: somebody forged a record, or a shard failed over with a part whose epoch was retired before (Limits)."""
    servers = world.servers_of(state)
    forged = any(server.now.row is Row.FORGED for server in servers)
    retired = servers[D].now.retired >= EPOCH
    return forged or (retired and any(server.now.prepared and server.timeline > 1 for server in servers))
