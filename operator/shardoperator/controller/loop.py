"""One cluster's loop: observe, plan, apply, write status; again after a while, or when woken.

Invariant: nothing that a shard or a platform does ends the loop; an error becomes a condition, a metric and a log line.
"""

from __future__ import annotations

import asyncio
import logging
import secrets as random
from dataclasses import replace
from datetime import UTC, datetime

from shardoperator.controller.platform import Platform
from shardoperator.controller.targets import Targets, targets
from shardoperator.errors import ShardError, ShardoperatorError
from shardoperator.models.conditions import merge
from shardoperator.models.manifest import Manifest
from shardoperator.models.observation import RecoveryReport, ShardObservation
from shardoperator.models.spec import seconds
from shardoperator.models.status import Status
from shardoperator.reconcile.inputs import Inputs
from shardoperator.reconcile.plan import Plan, plan
from shardoperator.recovery.controller import RecoveryController
from shardoperator.recovery.metrics import RecoveryMetrics
from shardoperator.resources.config import RenderedConfig, render_config
from shardoperator.shards.adopt import adopt
from shardoperator.shards.connect import ShardTarget
from shardoperator.shards.install import Logins, install
from shardoperator.shards.probe import probe

log = logging.getLogger("pgshepherd.controller")


class ClusterController:
    """Of one ShardedCluster."""

    def __init__(self, manifest: Manifest, platform: Platform, *, interval: float = 2.0) -> None:
        self.manifest = manifest
        self.interval = interval
        """Seconds between two visits."""
        self.status: Status | None = None
        self.metrics = RecoveryMetrics(manifest.cluster.metadata.namespace, manifest.cluster.metadata.name)
        self.wake = asyncio.Event()
        self._platform = platform
        self._recovery: RecoveryController | None = None
        self._rendered: RenderedConfig | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.visit()
            except ShardoperatorError as error:
                log.warning("%s: %s", self.manifest.cluster.metadata.name, error)
            self.wake.clear()
            try:
                async with asyncio.timeout(self.interval * (0.9 + random.randbelow(21) / 100)):
                    await self.wake.wait()
            except TimeoutError:
                continue

    async def visit(self) -> Status:
        """One pass."""
        known = targets(self.manifest.cluster, self.manifest.secrets)
        shards = await self._probe(known)
        inputs = self._inputs(known, shards, None)
        first = plan(inputs)
        if first.adopt:
            await self._adopt(known)
            shards = await self._probe(known)
            inputs = self._inputs(known, shards, None)
        report = await self._recover(known, inputs)
        self._render(known, inputs)
        inputs = replace(
            inputs,
            report=report,
            proxy=await self._platform.observe_proxy(),
            desired_hash=self._rendered.config_hash if self._rendered is not None else "",
        )
        decided = plan(inputs)
        if decided.run_proxy and self._rendered is not None:
            await self._platform.apply_proxy(self._rendered)
        return await self._write(inputs, decided)

    def _inputs(self, known: Targets, shards: tuple[ShardObservation, ...], report: RecoveryReport | None) -> Inputs:
        return Inputs(
            self.manifest.cluster,
            shards,
            self._platform.instances,
            report=report,
            missing_secrets=known.missing,
            known_numbers={shard.name: shard.number for shard in self.status.shards} if self.status is not None else None,
        )

    async def _probe(self, known: Targets) -> tuple[ShardObservation, ...]:
        """All shards at once: one that hangs delays the visit by its time limit, not each other."""
        observations = list(await asyncio.gather(*(self._probe_one(known, position) for position in range(len(known.recovery)))))
        return tuple(observations)

    async def _probe_one(self, known: Targets, position: int) -> ShardObservation:
        spec = self.manifest.cluster.spec
        target, logins = known.recovery[position], known.logins[position]
        if target is None or logins is None:
            shard = spec.shards[position]
            missing = f"shard {shard.name}: a Secret is missing: {'; '.join(known.missing)}"
            return ShardObservation(shard.name, spec.number(position), reachable=False, reason="SecretNotFound", message=missing)
        seen = await probe(target, logins)
        installer = known.installers[position]
        lacking = seen.reachable and any(problem.remedy for problem in seen.problems)
        if lacking and installer is not None and (seen.max_prepared_transactions or 0) > 0:
            return await self._install(installer, logins, target, seen)
        return seen

    async def _install(
        self, installer: ShardTarget, logins: Logins, target: ShardTarget, seen: ShardObservation
    ) -> ShardObservation:
        try:
            await install(installer, logins)
        except ShardError as error:
            log.warning("%s", error)
            return seen
        log.info("%s: installed the schema pgshepherd", target.where)
        return await probe(target, logins)

    async def _adopt(self, known: Targets) -> None:
        wanted = self.manifest.cluster.spec.cluster_id or random.token_hex(8)
        try:
            cluster_id = await adopt(known.reachable, wanted)
        except ShardError as error:
            log.warning("adoption: %s", error)
        else:
            log.info("adopted %d shards into cluster %s", len(known.reachable), cluster_id)

    async def _recover(self, known: Targets, inputs: Inputs) -> RecoveryReport | None:
        cluster_id = inputs.cluster_id or (self.status.cluster_id if self.status is not None else None)
        if cluster_id is None:
            return None
        recovery = self.manifest.cluster.spec.recovery
        members = {number for shard in inputs.shards if shard.identity is not None for number in shard.identity.members}
        members |= {shard.number for shard in inputs.shards}
        if self._recovery is None or self._recovery.cluster != cluster_id:
            self._recovery = RecoveryController(cluster_id, known.reachable, frozenset(members), metrics=self.metrics)
        self._recovery.targets = known.reachable
        self._recovery.members |= members
        self._recovery.grace = seconds(recovery.grace_period)
        self._recovery.resolve = recovery.mode == "Resolve" and not inputs.paused
        return await self._recovery.run_pass()

    def _render(self, known: Targets, inputs: Inputs) -> None:
        """Only from a whole view; else what was rendered last stays."""
        identifiers = [shard.identity.system_identifier for shard in inputs.shards if shard.identity is not None]
        if inputs.cluster_id is None or known.proxy is None or len(identifiers) != len(inputs.shards):
            return
        self._rendered = render_config(self.manifest.cluster, inputs.cluster_id, identifiers, known.proxy, self._platform.listen)

    async def _write(self, inputs: Inputs, decided: Plan) -> Status:
        metadata = self.manifest.cluster.metadata
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        old = self.status.conditions if self.status is not None else ()
        cluster_id = inputs.cluster_id or (self.status.cluster_id if self.status is not None else None)
        conditions = merge(old, decided.conditions, metadata.generation, now)
        status = Status(
            metadata.name, metadata.namespace, metadata.generation, cluster_id, conditions, inputs.shards, inputs.report
        )
        changed = self.status is None or status != self.status
        self.status = status
        if changed:
            await self._platform.write_status(status)
        return status
