"""One operator at a time: the second waits, takes over when the first ends or dies, and whoever lost the lease ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from kube import Kubectl
from kubeworld import Operator, World, until


async def _holder(world: World) -> str:
    admin = Kubectl(world.kubectl.program, world.kubectl.kubeconfig, "pgshepherd")
    lease = json.loads(await admin("get", "lease", "pgshepherd-operator", "-o", "json"))
    return str(lease["spec"]["holderIdentity"])


def _leads(operator: Operator) -> bool:
    return " leads" in operator.text()


async def test_the_second_takes_over(world: World, operator: Operator, tmp_path: Path) -> None:
    await world.apply()
    await world.wait("Ready")
    second = Operator(operator.kubeconfig, tmp_path / "second.log")
    await second.start()
    first_holder = await _holder(world)
    assert not _leads(second)

    assert await operator.stop() == 0  # gives the lease back

    async def taken() -> bool:
        return _leads(second)

    await until(taken)
    assert await _holder(world) != first_holder
    await world.kubectl("delete", "pdb", "shop-proxy")

    async def mended() -> bool:
        return await world.get("pdb", "shop-proxy") is not None

    await until(mended)

    third = Operator(operator.kubeconfig, tmp_path / "third.log")
    await third.start()
    await second.stop(signal.SIGKILL)

    async def taken_again() -> bool:
        return _leads(third)

    await until(taken_again)
    await third.stop()
    await operator.start()


async def test_whoever_lost_the_lease_ends(world: World, operator: Operator) -> None:
    admin = Kubectl(world.kubectl.program, world.kubectl.kubeconfig, "pgshepherd")
    await world.apply()
    await world.wait("Ready")

    async def taken_away() -> bool:
        """Another holder that renews: what an operator that was frozen for longer than its lease finds when it wakes up."""
        await admin(
            "patch", "lease", "pgshepherd-operator", "--type=merge", "-p", json.dumps({"spec": {"holderIdentity": "another"}})
        )
        assert operator.process is not None
        return operator.process.returncode is not None

    await until(taken_away)
    assert operator.process is not None
    assert operator.process.returncode == 1
    assert "the lease was lost" in operator.text()
    await admin("delete", "lease", "pgshepherd-operator")
    await operator.start()
    await world.kubectl("delete", "pdb", "shop-proxy")

    async def mended() -> bool:
        return await world.get("pdb", "shop-proxy") is not None

    await until(mended)
