"""Adopters that race, or die between two shards: the cluster gets one id, for ever."""

from __future__ import annotations

import asyncio

import pytest

from bench import PASSWORD
from commands import COMMAND, LIMIT, pgshepherd
from shardoperator.shards.connect import ShardTarget
from shardoperator.shards.install import Logins, install
from shardoperator.standalone.children import die_with_parent
from shardoperator.standalone.demo.link import Direction, FaultLink, When, containing
from yard import Site


async def installed(site: Site) -> Site:
    for number, server in enumerate(site.servers):
        place = (f"shop-{number}", number, "127.0.0.1", server.port, site.database)
        await install(ShardTarget(*place, server.superuser, server.password), Logins("recovery", "recovery", ("app",)))
    return site


async def test_a_race(site: Site) -> None:
    """Both have seen that no shard has an id, and are about to write one."""
    await installed(site)
    links = [FaultLink(site.servers[0].port) for _ in range(2)]
    for link in links:
        await link.start()
    traps = [link.trap(Direction.TO_SERVER, containing("INSERT INTO pgshepherd.shard"), When.BEFORE) for link in links]
    adopters = []
    try:
        for number, link in enumerate(links):
            manifest = site.manifest(ports=[link.port, site.servers[1].port], name=f"{number}.yaml")
            adopters.append(asyncio.create_task(pgshepherd("adopt", "-f", str(manifest))))
        await asyncio.wait_for(asyncio.gather(*(trap.hit.wait() for trap in traps)), LIMIT)
        ended = []
        for link, adopter in zip(links, adopters, strict=True):  # the second overtakes nobody: all is done when it writes
            link.heal()
            ended.append(await adopter)
    finally:
        for link in links:
            await link.close()
    assert [one.code for one in ended] == [0, 0], [one.err for one in ended]
    assert ended[0].out == ended[1].out
    cluster = ended[0].out.split()[-1]
    assert await site.rows("cluster, number, members") == [f"{cluster}|0|{{0,1}}", f"{cluster}|1|{{0,1}}"]


@pytest.mark.parametrize("when", list(When))
@pytest.mark.parametrize("victim", [0, 1])
async def test_an_adopter_dies(site: Site, when: When, victim: int) -> None:
    """Before or after its INSERT on either shard; whoever comes next completes it with the same id."""
    await installed(site)
    links = [FaultLink(server.port) for server in site.servers]
    for link in links:
        await link.start()
    trap = links[victim].trap(Direction.TO_SERVER, containing("INSERT INTO pgshepherd.shard"), when)
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "adopt", "-f", str(site.manifest(ports=[link.port for link in links])), preexec_fn=die_with_parent
    )
    try:
        await asyncio.wait_for(trap.hit.wait(), LIMIT)
    finally:
        process.kill()
        await process.wait()
        for link in links:
            await link.close()
    before = await site.rows("cluster")
    if when is When.BEFORE:
        assert before[victim] == ""
    ended = await pgshepherd("adopt", "-f", str(site.manifest()))
    assert ended.code == 0
    after = await site.rows("cluster")
    assert len(set(after)) == 1
    assert after[0] in ended.out
    assert all(old in ("", new) for old, new in zip(before, after, strict=True))
    if victim == 1:
        assert before[0] == after[0]
    assert PASSWORD not in ended.said
