"""Cleaning up after one decision shard: epochs are retired, and records that nobody needs any more are deleted.  Sans-I/O.

docs/commit-protocol.md, Cleaning up.  Invariants: an epoch is retired only when no GID that names it is prepared anywhere and every
participant named in its records has shown its own; exactly the records that were checked are deleted; the others' records go only
after the retirement is durable on the decision shard and its standbys.  Whatever goes wrong ends the pass; the next one reads
everything again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from shardproxy.twophase import cleanup_messages as c
from shardproxy.twophase.gid import Gid
from shardproxy.twophase.messages import Connect, Connected, Done, Lost, Unreachable

EVERY_EPOCH = 2**62
"""Above every epoch."""

Commands = tuple[c.Command, ...]
Replies = tuple[c.Reply, ...]
"""One for each command, in their order."""
Exchange = Generator[Commands, Replies, None]
T = TypeVar("T")


class _Over(Exception):
    """The pass ends here."""


@dataclass
class Cleaner:
    """One pass for one decision shard; `run` yields commands to be run in parallel and is sent their replies."""

    decision: int
    members: frozenset[int]
    """The numbers of all shards ever adopted, the decision shard included."""
    forgotten: frozenset[int] = frozenset()
    """Members that a person gave up: they count as reached without evidence."""
    held: str = ""
    """Why nothing was retired; empty if there was nothing to retire or it was done."""
    failure: str = ""
    """Why the pass ended early."""
    losses: list[str] = field(default_factory=list)
    """What is found to be lost, each told once: an audit row was written for it."""
    deleted: int = 0
    """Records that went from the decision shard."""
    _unreached: list[int] = field(default_factory=list)

    def run(self) -> Exchange:
        """To the end of the pass; the findings are in the fields."""
        try:
            yield from self._pass()
        except _Over as over:
            self.failure = str(over)

    def _pass(self) -> Exchange:
        timeline = yield from self._connect()
        state = yield from self._one(c.ReadState(self.decision), c.StateIs)
        if state.compared_timeline != timeline:
            yield from self._compare(state.retired, timeline)
            yield from self._done(c.SetCompared(self.decision, timeline))
        if state.lasted:
            if state.epoch - 2 > state.retired:
                yield from self._retire(state.epoch - 2, timeline)
            yield from self._done(c.RaiseEpoch(self.decision, state.epoch))
        yield from self._delete_others()
        yield from self._done(c.DeleteTombstones(self.decision))

    def _connect(self) -> Generator[Commands, Replies, int]:
        """The decision shard's timeline, as its one connection shows it."""
        connected = yield from self._one(Connect(self.decision), Connected)
        for reply in (yield tuple(Connect(number) for number in self._others)):
            if not isinstance(reply, Connected):
                self._unreached.append(reply.shard)
        return connected.timeline

    @property
    def _others(self) -> list[int]:
        return sorted(self.members - {self.decision} - self.forgotten - set(self._unreached))

    # --- after a promotion: is every decision still there?

    def _compare(self, retired: int, timeline: int) -> Exchange:
        """The others' GIDs first, then their records, then on the decision shard the GIDs, then its records (!)."""
        self._demand_all("it failed over, and is not compared yet")
        for reply in (yield from self._each([c.ReadPrepared(number) for number in self._others], c.PreparedAre)):
            if any(self._is_older(gid, retired, timeline) for gid in reply.gids):
                raise _Over(f"it failed over, and shard {reply.shard} has yet to finish transactions that it decided before")
        asked = [c.ReadRecords(number, self.decision, retired, EVERY_EPOCH) for number in self._others]
        found = yield from self._each(asked, c.RecordsAre)
        txns = tuple(sorted({record.txn for reply in found for record in reply.records}))
        prepared = yield from self._one(c.ReadPrepared(self.decision), c.PreparedAre)
        own = yield from self._one(c.ReadOwn(self.decision, txns), c.OwnAre)
        if any(gid.txn in txns for gid in prepared.gids):
            raise _Over("it failed over, and transactions that were committed are prepared on it again: they are repaired first")
        if own.retired > retired:
            raise _Over("an epoch was retired meanwhile")
        for txn in sorted(set(txns) - own.txns):
            yield from self._lost(txn, f"shard {self.decision} lost its decision to commit in a failover; others have committed")

    def _is_older(self, gid: Gid, retired: int, timeline: int) -> bool:
        """It may still be committed by a coordinator that knows of a decision which was lost."""
        return gid.decision_shard == self.decision and gid.epoch > retired and gid.decision_timeline < timeline

    # --- retiring an epoch

    def _retire(self, epoch: int, timeline: int) -> Exchange:
        if self._unreached:
            self.held = f"not reached: {_list(self._unreached)}"
            return
        open_ones = yield from self._one(c.CheckOpenTransactions(self.decision), Done, c.Held)
        if isinstance(open_ones, c.Held):
            self.held = open_ones.reason
            return
        listed = yield from self._one(c.ReadRecords(self.decision, self.decision, -1, epoch), c.RecordsAre)
        records = listed.records
        if not (yield from self._nothing_prepared(epoch)):
            return
        missing = yield from self._missing(records)
        if missing:
            records = yield from self._accept_losses(records, missing)
        if not (yield from self._replayed(self._others)):
            return
        retire = c.Retire(self.decision, epoch, tuple(record.txn for record in records), timeline)
        done = yield from self._one(retire, Done, c.Held)
        if isinstance(done, c.Held):
            self.held = done.reason
        else:
            self.deleted = len(records)

    def _nothing_prepared(self, epoch: int) -> Generator[Commands, Replies, bool]:
        """Listed after the records were seen (!)."""
        asked = [c.ReadPrepared(number) for number in (self.decision, *self._others)]
        for reply in (yield from self._each(asked, c.PreparedAre)):
            named = [gid for gid in reply.gids if gid.decision_shard == self.decision and gid.epoch <= epoch]
            if named:
                self.held = f"{len(named)} transactions that it decides are still prepared on shard {reply.shard}"
                return False
        return True

    def _missing(self, records: Iterable[c.CommitRecord]) -> Generator[Commands, Replies, list[tuple[int, str]]]:
        """Participants that show no record of their own, after nothing was found prepared there."""
        named = {number: tuple(one.txn for one in records if number in one.participants) for number in self._others}
        asked = [c.ReadOwn(number, txns) for number, txns in named.items() if txns]
        replies = yield from self._each(asked, c.OwnAre)
        return [(reply.shard, txn) for reply in replies for txn in named[reply.shard] if txn not in reply.txns]

    def _accept_losses(
        self, records: tuple[c.CommitRecord, ...], missing: list[tuple[int, str]]
    ) -> Generator[Commands, Replies, tuple[c.CommitRecord, ...]]:
        """What is gone while the decision stands when it is read afterwards is lost, and holds nothing back from now on."""
        own = yield from self._one(c.ReadOwn(self.decision, tuple(one.txn for one in records)), c.OwnAre)
        for number, txn in missing:
            if txn in own.txns:
                yield from self._lost(txn, f"shard {number} lost its part of a committed transaction")
        return tuple(one for one in records if one.txn in own.txns)

    def _lost(self, txn: str, text: str) -> Exchange:
        written = yield from self._one(c.WriteLoss(self.decision, txn, text), Done, c.Held)
        if isinstance(written, Done):
            self.losses.append(f"{txn}: {text}")

    # --- what a retirement lets go on the other shards

    def _delete_others(self) -> Exchange:
        """The retirement is replayed, and the decision shard still says so."""
        if not (yield from self._replayed([self.decision])):
            return
        state = yield from self._one(c.ReadState(self.decision), c.StateIs)
        if state.retired > 0:
            yield from self._each([c.DeleteRecords(number, self.decision, state.retired) for number in self._others], Done)

    def _replayed(self, shards: list[int]) -> Generator[Commands, Replies, bool]:
        replies = yield from self._each([c.CheckReplayed(number) for number in shards], Done, c.Held)
        waiting = [reply for reply in replies if isinstance(reply, c.Held)]
        if waiting:
            self.held = self.held or waiting[0].reason
        return not waiting

    # --- asking

    def _demand_all(self, why: str) -> None:
        if self._unreached:
            raise _Over(f"{why}: not reached: {_list(self._unreached)}")

    def _done(self, command: c.Command) -> Exchange:
        yield from self._one(command, Done)

    def _one(self, command: c.Command, *kinds: type[T]) -> Generator[Commands, Replies, T]:
        replies = yield from self._each([command], *kinds)
        return replies[0]

    def _each(self, commands: Iterable[c.Command], *kinds: type[T]) -> Generator[Commands, Replies, list[T]]:
        """The replies, if all are of these kinds; any other ends the pass."""
        asked = tuple(commands)
        replies = (yield asked) if asked else ()
        found: list[T] = []
        for reply in replies:
            if isinstance(reply, Lost | Unreachable):
                raise _Over(f"shard {reply.shard}: {reply.reason or 'the link was lost'}")
            if not isinstance(reply, kinds):
                raise AssertionError(f"clean-up: {reply} is no answer to anything asked")
            found.append(reply)
        return found


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))
