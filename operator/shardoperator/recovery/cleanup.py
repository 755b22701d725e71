"""Rounds of clean-up: every shard in its turn as the decision shard, by the commit protocol's engine.

Invariant: a round never raises for a shard; why nothing could be retired is told, and is no failure.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shardoperator.errors import ShardError
from shardoperator.shards.connect import ShardTarget
from shardoperator.shards.link import ShardLink
from shardproxy.twophase import cleanup_messages as c
from shardproxy.twophase.cleanup import Cleaner, Commands, Replies
from shardproxy.twophase.messages import Unreachable

log = logging.getLogger("pgshepherd.cleanup")

SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds between two rounds, which are a tenth of the retention."""


@dataclass
class Cleanup:
    """Of one cluster; owned by its recovery controller, which shares what it knows of timelines."""

    cluster: str
    timelines: dict[int, int]
    retention: float = 600.0
    """Seconds for which an epoch's records stay at least: time for a failover to bring a GID back and be repaired from them."""
    held: Mapping[int, str] = field(default_factory=dict)
    """By shard: why nothing of its was retired in the last round."""
    losses: tuple[str, ...] = ()
    """What is written down as lost on the shards, and not acknowledged."""
    _not_before: float = 0.0

    async def run_if_due(self, targets: Sequence[ShardTarget], members: frozenset[int]) -> None:
        """A round, unless the last one was a short while ago."""
        now = asyncio.get_running_loop().time()
        if now >= self._not_before:
            self._not_before = now + min(LONGEST_PAUSE, max(SHORTEST_PAUSE, self.retention / 10))
            await self.run(targets, members)

    async def run(self, targets: Sequence[ShardTarget], members: frozenset[int]) -> list[Cleaner]:
        """One pass for each shard that there is a login for."""
        held, done = {}, []
        for target in targets:
            links = {each.number: ShardLink(each, self.cluster, self.timelines) for each in targets}
            try:
                cleaner = await self._pass(Cleaner(target.number, members), links)
            finally:
                for link in links.values():
                    link.close()
            if cleaner.held or cleaner.failure:
                held[target.number] = cleaner.held or cleaner.failure
                log.info("clean-up for shard %d: %s", target.number, held[target.number])
            for loss in cleaner.losses:
                log.error("data lost: %s", loss)
            done.append(cleaner)
        self.held = held
        await self._read_losses(targets)
        return done

    async def _pass(self, cleaner: Cleaner, links: Mapping[int, ShardLink]) -> Cleaner:
        exchange = cleaner.run()
        commands: Commands = next(exchange, ())
        while commands:
            replies: Replies = tuple(await asyncio.gather(*(self._one(links, command) for command in commands)))
            try:
                commands = exchange.send(replies)
            except StopIteration:
                break
        return cleaner

    async def _one(self, links: Mapping[int, ShardLink], command: c.Command) -> c.Reply:
        link = links.get(command.shard)
        if link is None:
            return Unreachable(command.shard, "no connection to this shard is configured")
        return await link.clean(command, self.retention)

    async def _read_losses(self, targets: Sequence[ShardTarget]) -> None:
        """What can't be read now stays as it was."""
        found: list[str] = []
        for target in targets:
            link = ShardLink(target, self.cluster, self.timelines)
            try:
                found.extend(await link.losses())
            except ShardError as error:
                log.warning("losses on shard %d could not be read: %s", target.number, error)
                found.extend(loss for loss in self.losses if loss not in found)
            finally:
                link.close()
        self.losses = tuple(dict.fromkeys(found))
