"""A person decides a transaction: with the evidence, without any, or, by force, against it.

Invariant: why and by whom is written to `pgshepherd.audit` before anything is done; the decision shard comes first, so that every
recovery that looks afterwards finds the same answer; what is not ours is never touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from shardoperator.errors import ShardError
from shardoperator.recovery.classify import Group, groups
from shardoperator.recovery.controller import RecoveryController
from shardoperator.shards.link import ShardLink, resolve_on
from shardoperator.shards.scan import Sighting
from shardproxy.twophase import messages as m
from shardproxy.twophase.evidence import TransactionClass, Verdict
from shardproxy.twophase.gid import Gid


class Decision(StrEnum):
    """What the person says."""

    COMMIT = "commit"
    ROLLBACK = "rollback"


@dataclass(frozen=True)
class Outcome:
    """What the evidence was, and what was done."""

    verdict: Verdict
    acted: tuple[str, ...]
    failures: tuple[str, ...] = ()


class Objection(ShardError):
    """The evidence speaks against it, or could not be seen."""


_AGREES = {Decision.COMMIT: TransactionClass.COMMITTED, Decision.ROLLBACK: TransactionClass.ABORTED}


def objection(decision: Decision, verdict: Verdict, unseen: Sequence[str]) -> str:
    """Why it needs force; empty if it does not."""
    found = verdict.transaction_class
    if found is _AGREES[decision]:
        return ""
    if found in _AGREES.values():
        return f"the evidence says that it is {found.value}: {verdict.reason}"
    return f"what these would show is not known: {'; '.join(unseen)}" if unseen else ""


def chosen(name: str, sightings: Sequence[Sighting], cluster: str) -> Group:
    """By a GID, or by the 32 digits of a transaction; raises ShardError where that is nothing of ours, or not one thing."""
    found = [one for one in groups(sightings, cluster) if name == one.txn or name in {part.gid for part in one.parts}]
    if len(found) == 1:
        return found[0]
    if found:
        gids = ", ".join(part.gid for one in found for part in one.parts)
        raise ShardError("Ambiguous", f"parts of {name} disagree in owner, epoch or decision shard: name one of these: {gids}")
    if any(name == one.gid for one in sightings):
        raise ShardError("Foreign", f"{name} is not of cluster {cluster}: only its own transaction manager may finish it")
    raise ShardError("NotFound", f"no prepared transaction {name} on the shards that could be scanned")


async def decide(controller: RecoveryController, name: str, decision: Decision, reason: str, *, force: bool) -> Outcome:
    """Raises Objection where the evidence speaks against it, and ShardError where nothing could be done."""
    links = {target.number: ShardLink(target, controller.cluster, {}) for target in controller.targets}
    try:
        scans = await asyncio.gather(*(controller.scan(link) for link in links.values()))
        failed = {number: found for number, found in zip(links, scans, strict=True) if isinstance(found, str)}
        group = chosen(name, [each for found in scans if not isinstance(found, str) for each in found], controller.cluster)
        unseen = [f"shard {number}: {failed.get(number, 'no login given')}" for number in sorted(_unseen(controller, failed))]
        verdict = await controller.examine(group, links, read_only=True)
        against = objection(decision, verdict, unseen)
        if against and not force:
            raise Objection("Evidence", against)
        await _announce(group, links, decision, f"{reason} (by force: {against})" if against else reason, verdict)
        if verdict.transaction_class is _AGREES[decision]:
            done = await controller.examine(group, links, read_only=False)
            return Outcome(verdict, done.acted, done.failures)
        return await _Hand(group, links, decision, verdict).act()
    finally:
        for link in links.values():
            link.close()


def _unseen(controller: RecoveryController, failed: Mapping[int, str]) -> frozenset[int]:
    return controller.members - {target.number for target in controller.targets} | failed.keys()


async def _announce(group: Group, links: Mapping[int, ShardLink], decision: Decision, reason: str, verdict: Verdict) -> None:
    """On every shard that is to be acted on."""
    for part in group.parts:
        await links[part.shard].audit(group.txn, decision.value, f"by hand: {reason}", verdict.evidence)


@dataclass
class _Hand:
    """What no evidence proves."""

    group: Group
    links: Mapping[int, ShardLink]
    decision: Decision
    verdict: Verdict

    async def act(self) -> Outcome:
        """The decision shard first; if that fails, nothing else is done."""
        parts = [(part.parsed, part.owner) for part in self.group.parts if part.parsed is not None]
        first = next((part for part in parts if part[0].is_decision), None)
        done = await (self._finish(*first) if first is not None else self._write_down(*parts[0]))
        outcome = Outcome(self.verdict, (done,) if done else ())
        for gid, owner in (part for part in parts if part is not first):
            try:
                outcome = Outcome(self.verdict, (*outcome.acted, await self._finish(gid, owner)), outcome.failures)
            except ShardError as error:
                outcome = Outcome(self.verdict, outcome.acted, (*outcome.failures, str(error)))
        return outcome

    async def _finish(self, gid: Gid, owner: str) -> str:
        verb = "committed" if self.decision is Decision.COMMIT else "rolled back"
        command = m.CommitPrepared(gid, owner) if self.decision is Decision.COMMIT else m.RollbackPrepared(gid, owner)
        reply = await resolve_on(self.links, command, self.group.txn)
        if isinstance(reply, m.Done):
            return f"shard {gid.shard}: {verb}"
        if isinstance(reply, m.Gone):
            raise ShardError("Gone", f"shard {gid.shard}: resolved by somebody else meanwhile: look again")
        raise ShardError("Failed", f"shard {gid.shard}: {_say(reply)}")

    async def _write_down(self, gid: Gid, owner: str) -> str:
        """The decision shard's part is not there: its register of decisions is written, unless it says something already."""
        shard = gid.decision_shard
        link = self.links.get(shard)
        if link is None or not link.is_open:
            return ""
        if self.decision is Decision.COMMIT:
            reply = await link.record_by_hand(gid, owner)
        else:
            reply = await link.run(m.WriteTombstone(shard, gid.txn, gid.epoch), gid.txn)
        if isinstance(reply, m.Done):
            return f"shard {shard}: {'commit record' if self.decision is Decision.COMMIT else 'tombstone'} written"
        if isinstance(reply, m.NotInserted):
            return ""
        raise ShardError("Failed", f"decision shard {shard}: {_say(reply)}")


def _say(reply: m.Reply) -> str:
    match reply:
        case m.Failed(_, sqlstate, message):
            return f"{sqlstate} {message}".strip()
        case m.Lost(_, reason) | m.Unreachable(_, reason):
            return reason or "the link was lost"
        case m.Blocked():
            return "an open transaction has written its record there: its coordinator is at work"
        case _:
            return type(reply).__name__.lower()


async def acknowledge(controller: RecoveryController, txn: str, reason: str) -> tuple[list[int], list[str]]:
    """End the alert of a loss: where it was written down, so that nobody tells of it again; which shards, and which could not be asked."""
    acknowledged, failed = [], []
    for target in controller.targets:
        link = ShardLink(target, controller.cluster, {})
        try:
            if any(loss.startswith(f"{txn}:") for loss in await link.losses()):
                await link.audit(txn, "acknowledge", reason, ())
                acknowledged.append(target.number)
        except ShardError as error:
            failed.append(f"shard {target.number}: {error}")
        finally:
            link.close()
    return acknowledged, failed
