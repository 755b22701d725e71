"""One pass over all shards: scan, classify, resolve, report.

Invariant: a shard that could not be scanned is in the report as failed, never as clean; one transaction that can't be resolved
delays no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import shardoperator.recovery.classify as classify
from shardoperator.errors import ShardError
from shardoperator.models.observation import PreparedTransaction, RecoveryReport
from shardoperator.recovery.classify import Group
from shardoperator.recovery.cleanup import Cleanup
from shardoperator.recovery.metrics import ClusterMetrics, RecoveryMetrics
from shardoperator.shards.connect import ShardTarget
from shardoperator.shards.link import ShardLink, resolve_on
from shardoperator.shards.scan import Sighting
from shardproxy.twophase.evidence import TransactionClass, Verdict
from shardproxy.twophase.recovery import Resolver

log = logging.getLogger("pgshepherd.recovery")

PARALLEL = 16
"""Transactions that are resolved at a time; they share one connection for each shard."""

BACKOFF_FIRST, BACKOFF_MAX = 2.0, 60.0
"""Seconds until a transaction that stayed in doubt is asked about again: doubles from the first to the last."""


NOTICED = 1.0
"""Seconds of age from which it is worth a question whom a transaction blocks."""


@dataclass
class _Backoff:
    delay: float = BACKOFF_FIRST
    until: float = 0.0
    last: Verdict | None = None
    waits_since: float | None = None
    """When its tombstone was first found waiting for an open transaction."""
    fenced: bool = False
    """It has been tried to end that transaction."""


@dataclass
class RecoveryController:
    """Recovery of one cluster."""

    cluster: str
    """Cluster id, 16 hex digits."""
    targets: Sequence[ShardTarget]
    members: frozenset[int]
    """Numbers of all shards ever adopted; one without a target counts as not reached."""
    grace: float = 5.0
    """Seconds for which a transaction is left to its coordinator; saves work, and is not needed for safety."""
    resolve: bool = True
    """False: look, and say what would be done."""
    metrics: ClusterMetrics = field(default_factory=lambda: ClusterMetrics(RecoveryMetrics()))
    retention: float = 600.0
    """Seconds for which records stay at least, after their epoch."""
    _timelines: dict[int, int] = field(default_factory=dict)
    _backoff: dict[tuple[object, ...], _Backoff] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Clean-up shares what is known of timelines: an old primary is one for both."""
        self.cleanup = Cleanup(self.cluster, self._timelines)

    async def clean(self) -> None:
        """A round of clean-up if one is due; never raises for a shard, and may take as long as the slowest shard."""
        self.cleanup.retention = self.retention
        if self.resolve:
            await self.cleanup.run_if_due(self.targets, self.members)

    async def run_pass(self) -> RecoveryReport:
        """Never raises for a shard or a transaction; the report says what failed."""
        links = {target.number: ShardLink(target, self.cluster, self._timelines) for target in self.targets}
        try:
            return await self._pass(links)
        finally:
            for link in links.values():
                link.close()

    async def _pass(self, links: dict[int, ShardLink]) -> RecoveryReport:
        scans = await asyncio.gather(*(self.scan(link) for link in links.values()))
        sightings = [sighting for found in scans if not isinstance(found, str) for sighting in found]
        failed = [(number, found) for number, found in zip(links, scans, strict=True) if isinstance(found, str)]
        groups = classify.groups(sightings, self.cluster)
        for key in self._backoff.keys() - {group.key for group in groups}:
            del self._backoff[key]
        gate = asyncio.Semaphore(PARALLEL)
        results = await asyncio.gather(*(self._one(group, links, gate) for group in groups))
        report = RecoveryReport(
            transactions=(*classify.foreign(sightings, self.cluster), *(one for found, _ in results for one in found)),
            failed=tuple(failed),
            actions=tuple(action for _, verdict in results for action in verdict.acted),
            failures=tuple(failure for _, verdict in results for failure in verdict.failures),
            losses=(*self.cleanup.losses, *(verdict.loss for _, verdict in results if verdict.loss and verdict.acted)),
            scanned=frozenset(links) - {number for number, _ in failed},
        )
        self.metrics.record(report, self.targets)
        return report

    async def scan(self, link: ShardLink) -> list[Sighting] | str:
        """What is prepared there, or why that could not be seen."""
        try:
            return await link.scan()
        except ShardError as error:
            return str(error)

    async def _one(
        self, group: Group, links: dict[int, ShardLink], gate: asyncio.Semaphore
    ) -> tuple[list[PreparedTransaction], Verdict]:
        """Its parts, and what came of it; what was done, what failed and what may have been lost name the transaction."""
        if group.age < self.grace:
            why = f"younger than the grace period of {self.grace:g} s: left to its coordinator"
            live = Verdict(TransactionClass.LIVE, why, ())
            return await self._described(group, live, links), live
        backoff = self._backoff.setdefault(group.key, _Backoff())
        now = asyncio.get_running_loop().time()
        if backoff.last is not None and now < backoff.until:
            return await self._described(group, backoff.last, links), _named(group, replace(backoff.last, acted=()))
        backoff.fenced = backoff.waits_since is not None and now - backoff.waits_since >= self.grace
        async with gate:
            verdict = await self.examine(group, links, read_only=not self.resolve, fence=backoff.fenced)
        self._note(group, backoff, verdict, now)
        if verdict.acted:
            await self._audit(group, verdict, links)
        self.metrics.acted(verdict)
        named = _named(group, verdict)
        for action in named.acted:
            log.info("%s", action)
        for failure in named.failures:
            log.warning("%s", failure)
        if named.loss and named.acted:
            log.error("%s", named.loss)
        return await self._described(group, verdict, links), named

    def _note(self, group: Group, backoff: _Backoff, verdict: Verdict, now: float) -> None:
        undecided = verdict.transaction_class not in (TransactionClass.COMMITTED, TransactionClass.ABORTED)
        if undecided or verdict.failures:
            backoff.last, backoff.until = verdict, now + backoff.delay
            backoff.delay = min(BACKOFF_MAX, backoff.delay * 2)
            backoff.waits_since = (backoff.waits_since or now) if verdict.waits else None
            if backoff.waits_since is not None and not backoff.fenced:
                backoff.until = min(backoff.until, backoff.waits_since + self.grace)
            log.warning("transaction %s is %s: %s", group.txn, verdict.transaction_class.value, verdict.reason)
        else:
            self._backoff.pop(group.key, None)

    def fence_due(self) -> float | None:
        """Seconds until a tombstone has waited long enough for its first fence; None if none waits."""
        now = asyncio.get_running_loop().time()
        due = [one.waits_since + self.grace - now for one in self._backoff.values() if one.waits_since and not one.fenced]
        return max(0.0, min(due)) if due else None

    async def examine(self, group: Group, links: dict[int, ShardLink], *, read_only: bool, fence: bool = False) -> Verdict:
        """Drive the engine for one transaction."""
        first = group.parts[0].parsed
        assert first is not None
        seen = tuple((part.parsed, part.owner) for part in group.parts if part.parsed is not None)
        state, commands = Resolver(first, self.members, seen, read_only=read_only, fence=fence).start()
        pending = {asyncio.ensure_future(resolve_on(links, command, group.txn)) for command in commands}
        try:
            while state.verdict is None:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    state, commands = state.step(task.result())
                    pending |= {asyncio.ensure_future(resolve_on(links, command, group.txn)) for command in commands}
        finally:
            for task in pending:
                task.cancel()
        return state.verdict

    async def _described(self, group: Group, verdict: Verdict, links: dict[int, ShardLink]) -> list[PreparedTransaction]:
        described = []
        for part in group.parts:
            blocks: tuple[str, ...] = ()
            if not verdict.acted and part.age > NOTICED:
                try:
                    blocks = await links[part.shard].blocked(part)
                except ShardError as error:
                    log.debug("who waits for %s on shard %d is not known: %s", group.txn, part.shard, error)
            described.append(classify.described(part, verdict.transaction_class, verdict.reason, verdict.evidence, blocks))
        return described

    async def _audit(self, group: Group, verdict: Verdict, links: dict[int, ShardLink]) -> None:
        """On the shards that were acted on; a row that can't be written is logged: the shards' state is the truth."""
        for part in group.parts:
            try:
                await links[part.shard].audit(group.txn, verdict.transaction_class.value, verdict.reason, verdict.evidence)
            except ShardError as error:
                log.warning("no audit row for %s on shard %d: %s", group.txn, part.shard, error)


def _named(group: Group, verdict: Verdict) -> Verdict:
    """For people, who see many transactions at a time."""
    acted = tuple(f"{group.txn}: {action} ({verdict.reason})" for action in verdict.acted)
    failures = tuple(f"{group.txn}: {failure}" for failure in verdict.failures)
    return replace(verdict, acted=acted, failures=failures, loss=f"{group.txn}: {verdict.loss}" if verdict.loss else "")
