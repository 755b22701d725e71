"""Running one statement, or one step of the extended protocol, on the shards where it belongs.

Invariant: outside a transaction nothing is sent that could write on more than one shard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shardproxy.backend.connection import ServerConnection
from shardproxy.errors import LinkLost, SqlError
from shardproxy.protocol import messages as pg
from shardproxy.query.assembly import check_descriptions, combined_tag
from shardproxy.query.commit import Link
from shardproxy.query.relay import ENDS_STATEMENT, Expect, Relay, Reply
from shardproxy.query.state import SessionState
from shardproxy.query.transaction import Joined, Transaction
from shardproxy.routing.plan import Assembly


@dataclass(frozen=True)
class Request:
    """What goes to one shard: a simple query's text, or extended-protocol frames with what they will bring."""

    text: str | None = None
    frames: bytes = b""
    expects: Sequence[Expect] = ()


Build = Callable[[ServerConnection], Request]


class Executor:
    """Sends requests and reads replies for one session."""

    def __init__(self, state: SessionState) -> None:
        self.state = state

    async def run(
        self,
        positions: frozenset[int],
        build: Build,
        *,
        assembly: Assembly = Assembly.SINGLE,
        writes: bool = False,
        hold: bool = False,
        outside: bool = False,
    ) -> Reply:
        """One request on each of the shards, in the transaction if there is one and not `outside` it; the answers as one.

        The completion is in `held` if `hold`; an error is raised after every shard has answered.
        """
        transaction = None if outside else self.state.transaction
        try:
            if transaction is not None:
                links = await self._join(transaction, sorted(positions), writes=writes)
                return await self._exchange(links, build, assembly, transaction, hold=hold)
            links = await self._lend(sorted(positions))
            try:
                return await self._exchange(links, build, assembly, None, hold=hold)
            finally:
                self._return(links)
        except SqlError as error:
            if self.state.transaction is not None:
                self.state.transaction.failed = True
            raise self.state.explained(error) from error

    def _return(self, links: dict[int, Link]) -> None:
        for position, link in links.items():
            self.state.using.discard(link.connection)
            self.state.release(position, link)

    async def _lend(self, positions: Sequence[int]) -> dict[int, Link]:
        links: dict[int, Link] = {}
        try:
            for position in positions:
                links[position] = await self.state.acquire(position)
                self.state.using.add(links[position].connection)
        except BaseException:
            self._return(links)
            raise
        return links

    async def _join(self, transaction: Transaction, positions: Sequence[int], *, writes: bool) -> dict[int, Link]:
        transaction.check_joins(frozenset(positions))
        for position in positions:
            if position not in transaction.joined:
                link = await self.state.acquire(position)
                if any(entry.is_session_setting for entry in transaction.log):
                    self.state.adopt(position, link)
                    link = Link(link.connection, None)
                link.settled = link.settled and not any(entry.savepoint is None for entry in transaction.log)
                transaction.joined[position] = Joined(link)
            transaction.joined[position].writes |= writes
        return {position: transaction.joined[position].link for position in positions}

    async def _exchange(
        self, links: dict[int, Link], build: Build, assembly: Assembly, transaction: Transaction | None, *, hold: bool
    ) -> Reply:
        """Send to all, then read one after the other: rows stream through, the others wait in their sockets."""
        relays: list[Relay] = []
        for position, link in links.items():
            prefix: list[str] = []
            if transaction is not None:
                prefix = transaction.prefix(position)
                transaction.joined[position].begun = True
            sharing = _Sharing(first=not relays, many=len(links) > 1, mirror=assembly is Assembly.MIRROR)
            if prefix:
                link.connection.unnamed = None  # before `build` looks: the prefix takes its place
            relays.append(self._send(link.connection, build(link.connection), prefix, sharing, hold=hold))
        replies, failure = await _read_all(relays)
        if failure is not None:
            raise failure
        if len(replies) == 1:
            return replies[0]
        if assembly is Assembly.CONCAT:
            check_descriptions(replies)
        return self._combine(assembly, replies, hold=hold)

    def _combine(self, assembly: Assembly, replies: list[Reply], *, hold: bool) -> Reply:
        first = replies[0]
        tag = combined_tag(assembly, replies)
        combined = Reply(tags=[tag] if tag else [], description=first.description, status=first.status)
        ends = [pg.command_complete(tag)] if tag else first.held
        if hold:
            combined.held = ends
        else:
            for end in ends:
                self.state.sink.put(end)
        return combined

    def _send(self, connection: ServerConnection, request: Request, prefix: list[str], sharing: _Sharing, *, hold: bool) -> Relay:
        """Write the request with whatever must precede it, in one go."""
        quiet = not sharing.first
        sink = None if quiet and sharing.mirror else self.state.sink
        if request.text is not None:
            before = "".join(f"{text};" for text in prefix)
            connection.send_query(before + request.text)
            keep = hold or sharing.many
            return Relay(connection, sink, skip=len(prefix), hold=keep, describe=not quiet, shift=len(before))
        frames, expects = _prefix_frames(connection, prefix)
        connection.send(frames + request.frames + pg.SYNC_FRAME)
        expects.extend(_held(request.expects, hold=sharing.many, quiet=quiet))
        return Relay(connection, sink, expects=expects, describe=not quiet)


@dataclass(frozen=True)
class _Sharing:
    """One shard's place among those that answer together."""

    first: bool
    many: bool
    mirror: bool


async def _read_all(relays: Sequence[Relay]) -> tuple[list[Reply], SqlError | None]:
    """Every reply, and the first error; a later shard is read to its end even so."""
    replies: list[Reply] = []
    failure: SqlError | None = None
    for relay in relays:
        try:
            reply = await relay.run()
        except SqlError as error:
            failure = failure or error
            continue
        failure = failure or reply.error
        replies.append(reply)
    return replies, failure


def _prefix_frames(connection: ServerConnection, prefix: Sequence[str]) -> tuple[bytes, list[Expect]]:
    """The proxy's own statements in front of extended-protocol messages: if one fails, the server skips all the rest."""
    if not prefix:
        return b"", []
    frames = b"".join(pg.parse("", text) + pg.bind_empty("", "") + pg.execute("") for text in prefix)
    one = [
        Expect(frozenset({pg.PARSE_COMPLETE}), forward=False),
        Expect(frozenset({pg.BIND_COMPLETE}), forward=False),
        Expect(ENDS_STATEMENT, forward=False),
    ]
    return frames, one * len(prefix)


def _held(expects: Sequence[Expect], *, hold: bool, quiet: bool) -> list[Expect]:
    """With many shards, ends of statements are held back; the later shards answer nothing but rows."""
    if not hold:
        return list(expects)
    changed = []
    for expect in expects:
        ends_statement = expect.ends is ENDS_STATEMENT
        changed.append(
            Expect(
                expect.ends,
                forward=expect.forward and (not quiet or ends_statement),
                before=b"" if quiet else expect.before,
                then=expect.then,
                hold=ends_statement and expect.forward,
            )
        )
    return changed


async def roll_back(link: Link, timeout: float) -> None:
    """ROLLBACK on a shard; a connection that does not answer is dropped, and its server does it then."""
    connection = link.connection
    if connection.usable and connection.busy_since is None and connection.transaction_status != "I":
        try:
            await connection.query("ROLLBACK", timeout)
        except LinkLost:
            return
    elif connection.busy_since is not None:
        connection.wire.abort()
