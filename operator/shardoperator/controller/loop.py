"""One cluster's loop: read, observe, plan, apply, write status; again after a while, or when woken.

Invariant: nothing that a shard or a platform does ends the loop; an error becomes a condition, a metric and a log line.  Recovery
goes on while the platform's API is away or the spec is invalid, with what was known last.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from shardoperator.controller.platform import Desired, Platform
from shardoperator.controller.shards import adopt_all, look
from shardoperator.controller.targets import Targets, targets
from shardoperator.errors import ShardoperatorError
from shardoperator.models.conditions import Condition, merge
from shardoperator.models.manifest import Manifest
from shardoperator.models.observation import RecoveryReport, ShardObservation
from shardoperator.models.spec import ShardedCluster
from shardoperator.models.status import Memory, Status
from shardoperator.models.values import seconds
from shardoperator.names import FORCE_DELETE
from shardoperator.reconcile.events import transitions
from shardoperator.reconcile.inputs import Inputs
from shardoperator.reconcile.plan import Plan, plan, without_spec
from shardoperator.recovery.controller import RecoveryController
from shardoperator.recovery.metrics import RecoveryMetrics
from shardoperator.resources.config import RenderedConfig, render_config
from shardoperator.resources.ownership import selector_text

log = logging.getLogger("pgshepherd.controller")

DRAIN_INTERVAL = 1.0
"""Seconds between two visits while something is ending."""


class ClusterController:
    """Of one ShardedCluster."""

    def __init__(
        self,
        platform: Platform,
        *,
        interval: float = 2.0,
        memory: Memory | None = None,
        metrics: RecoveryMetrics | None = None,
    ) -> None:
        self.interval = interval
        """Seconds between two visits."""
        self.status: Status | None = None
        self.memory = memory or Memory()
        self.metrics = metrics or RecoveryMetrics()
        self.wake = asyncio.Event()
        self._platform = platform
        self._desired: Desired | None = None
        self._manifest: Manifest | None = None
        """The last one that was valid."""
        self._recovery: RecoveryController | None = None
        self._cleaning: asyncio.Task[None] | None = None
        self._rendered: RenderedConfig | None = None
        self._visited = asyncio.get_running_loop().time()

    def since_visit(self) -> float:
        """Seconds since the last visit that came to its end."""
        return asyncio.get_running_loop().time() - self._visited

    async def run(self) -> None:
        """Until cancelled, or until a deleted cluster is let go."""
        try:
            await self._run()
        finally:
            if self._cleaning is not None:
                self._cleaning.cancel()
                await asyncio.gather(self._cleaning, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            pause = self.interval
            try:
                decided = await self.visit()
            except ShardoperatorError as error:
                log.warning("visit: %s", error)
            except Exception as error:  # noqa: BLE001 - the top-level loop: nothing may end it
                await self._failed(error)
            else:
                self._visited = asyncio.get_running_loop().time()
                if decided.let_go:
                    return
                pause = min(pause, DRAIN_INTERVAL) if decided.condition("Deleting").status == "True" else pause
            await self._sleep(pause)

    async def _sleep(self, pause: float) -> None:
        try:
            async with asyncio.timeout(pause * random.uniform(0.9, 1.1)):  # noqa: S311 - jitter
                await self.wake.wait()
        except TimeoutError:
            return
        finally:
            self.wake.clear()

    async def _failed(self, error: Exception) -> None:
        """A fault of ours: said as a doubt, since nobody has looked."""
        log.error("a visit failed", exc_info=error)
        self._count_failure()
        if self.status is None:
            return
        text = f"the last visit failed ({type(error).__name__}): see the operator's log"
        doubt = Condition("TransactionsResolved", "Unknown", "ScanFailed", text)
        conditions = [doubt if one.type == doubt.type else one for one in self.status.conditions]
        try:
            await self._write(replace(self.status, report=None), conditions)
        except ShardoperatorError as second:
            log.warning("the failure could not be written down: %s", second)

    def _count_failure(self) -> None:
        if self._desired is not None:
            self.metrics.of(self._desired.metadata.namespace, self._desired.metadata.name).visit_failed()

    # --- one visit

    async def visit(self) -> Plan:
        """One pass; raises ShardoperatorError if the platform could not be asked or told."""
        desired = await self._read()
        if self._manifest is None:
            return await self._visit_without_spec(desired)
        await self._platform.hold()
        cluster = self._manifest.cluster.model_copy(update={"metadata": desired.metadata})
        known = targets(cluster, self._manifest.secrets)
        inputs = self._inputs(cluster, known, await look(cluster, known, self.memory.adopted), desired.invalid)
        if plan(inputs).adopt:
            await adopt_all(cluster, known)
            inputs = self._inputs(cluster, known, await look(cluster, known, self.memory.adopted), desired.invalid)
        report = await self._recover(known, inputs)
        self._render(known, inputs)
        inputs = replace(
            inputs,
            report=report,
            proxy=await self._platform.observe_proxy(),
            desired_hash=self._rendered.config_hash if self._rendered is not None else "",
        )
        decided = plan(inputs)
        await self._apply(cluster, decided)
        await self._write_visit(inputs, decided)
        if decided.let_go:
            await self._let_go(cluster)
        return decided

    async def _read(self) -> Desired:
        """What is wanted now; while the platform is away, what was wanted last."""
        try:
            desired = await self._platform.read()
        except ShardoperatorError as error:
            if self._desired is None:
                raise
            log.warning("what is wanted could not be read, the last known stands: %s", error)
            return self._desired
        self._desired = desired
        self._manifest = desired.manifest or self._manifest
        return desired

    async def _visit_without_spec(self, desired: Desired) -> Plan:
        metadata = desired.metadata
        decided = without_spec(
            desired.invalid,
            self.memory.conditions,
            deleting=metadata.deletion_timestamp is not None,
            forced=metadata.says(FORCE_DELETE),
        )
        if decided.remove_proxy:
            await self._platform.remove_proxy()
        status = Status(metadata.name, metadata.namespace, metadata.generation, self.memory.cluster_id, ())
        await self._write(status, decided.conditions)
        if decided.let_go:
            await self._platform.let_go()
        return decided

    def _inputs(self, cluster: ShardedCluster, known: Targets, shards: tuple[ShardObservation, ...], invalid: str) -> Inputs:
        return Inputs(
            cluster,
            shards,
            self._platform.instances(cluster),
            missing_secrets=known.missing,
            known_numbers=self.memory.numbers or None,
            adopted=self.memory.adopted,
            last_cluster_id=self.memory.cluster_id,
            invalid=invalid,
        )

    async def _recover(self, known: Targets, inputs: Inputs) -> RecoveryReport | None:
        cluster_id = inputs.cluster_id or self.memory.cluster_id
        if cluster_id is None:
            return None
        spec, metadata = inputs.cluster.spec.recovery, inputs.cluster.metadata
        members = {number for shard in inputs.shards if shard.identity is not None for number in shard.identity.members}
        members |= {shard.number for shard in inputs.shards}
        if self._recovery is None or self._recovery.cluster != cluster_id:
            metrics = self.metrics.of(metadata.namespace, metadata.name)
            self._recovery = RecoveryController(cluster_id, known.reachable, frozenset(members), metrics=metrics)
        self._recovery.targets = known.reachable
        whole = all(shard.identity is not None for shard in inputs.shards)  # then a member that is named no more was forgotten
        self._recovery.members = frozenset(members) if whole else self._recovery.members | members
        self._recovery.grace = seconds(spec.grace_period)
        self._recovery.retention = seconds(inputs.cluster.spec.two_phase_commit.record_retention)
        self._recovery.resolve = spec.mode == "Resolve" and not inputs.paused
        report = await self._recovery.run_pass()
        self._clean(self._recovery)
        return report

    def _clean(self, recovery: RecoveryController) -> None:
        """Beside the visits: a shard that hangs in it delays none of them."""
        if self._cleaning is not None and not self._cleaning.done():
            return
        if self._cleaning is not None and not self._cleaning.cancelled() and (error := self._cleaning.exception()) is not None:
            log.error("clean-up failed", exc_info=error)
            self._count_failure()
        self._cleaning = asyncio.create_task(recovery.clean(), name="clean-up")

    def _render(self, known: Targets, inputs: Inputs) -> None:
        """Only from a whole and valid view; else what was rendered last stays."""
        identifiers = [shard.identity.system_identifier for shard in inputs.shards if shard.identity is not None]
        whole = inputs.cluster_id is not None and known.proxy is not None and len(identifiers) == len(inputs.shards)
        if not whole or inputs.invalid or inputs.cluster_id is None or known.proxy is None:
            return
        standbys = [shard.standbys for shard in inputs.shards]
        self._rendered = render_config(
            inputs.cluster, inputs.cluster_id, identifiers, known.proxy, self._platform.listen, standbys
        )

    async def _apply(self, cluster: ShardedCluster, decided: Plan) -> None:
        if decided.remove_proxy:
            await self._platform.remove_proxy()
        elif decided.run_proxy and self._rendered is not None:
            await self._platform.apply_proxy(cluster, self._rendered)

    async def _let_go(self, cluster: ShardedCluster) -> None:
        await self._platform.let_go()
        self.metrics.of(cluster.metadata.namespace, cluster.metadata.name).forget()

    # --- status

    async def _write_visit(self, inputs: Inputs, decided: Plan) -> None:
        metadata = inputs.cluster.metadata
        status = Status(
            metadata.name,
            metadata.namespace,
            metadata.generation,
            inputs.cluster_id or self.memory.cluster_id,
            (),
            inputs.shards,
            inputs.report,
            inputs.proxy,
            self._adopted(inputs),
            selector_text(metadata.name),
        )
        await self._write(status, decided.conditions)

    def _adopted(self, inputs: Inputs) -> frozenset[str]:
        names = frozenset(shard.name for shard in inputs.shards)
        return (self.memory.adopted & names) | {shard.name for shard in inputs.shards if shard.identity is not None}

    async def _write(self, status: Status, conditions: Sequence[Condition]) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        merged = merge(self.memory.conditions, tuple(conditions), status.observed_generation, now)
        events = transitions(self.memory.conditions, merged)
        self.status = replace(status, conditions=merged)
        await self._platform.write_status(self.status, events)
        self.memory = self.status.memory if status.shards else replace(self.memory, conditions=merged)
