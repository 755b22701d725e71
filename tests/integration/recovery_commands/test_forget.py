"""A shard that is gone for ever: a person says so, and it holds nothing back any more."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench import PASSWORD, Servers, bench
from commands import pgshepherd
from manifests import Place, write_manifest

WHY = ("--reason", "disk lost: INC-7")


async def test_a_shard_that_is_gone_for_ever(servers: Servers, tmp_path: Path) -> None:
    async with bench(servers, 3) as one:
        places = [Place(server.port, one.database) for server in one.servers]
        gone = str(write_manifest(tmp_path / "shop.yaml", places[:2]))
        given = [f"postgresql://recovery:{PASSWORD}@127.0.0.1:{place.port}/{one.database}" for place in places]
        recover = ("recover", "--dsn", given[0], "--dsn", given[1])
        ended = await pgshepherd(*recover)
        assert (ended.code, "not looked at: members 2" in ended.err) == (1, True)

        there = str(write_manifest(tmp_path / "all.yaml", places))
        for arguments, code, words in (
            (("-f", gone, "--forget-shard", "2"), 2, "--reason must say why"),
            (("-f", there, "--forget-shard", "2", *WHY), 2, "still in spec.shards"),
            (("-f", gone, "--forget-shard", "7", *WHY), 1, "no shard knows a member 7"),
            (("-f", str(write_manifest(tmp_path / "a.yaml", places[:1])), "--forget-shard", "2", *WHY), 1, "no login for [1]"),
        ):
            ended = await pgshepherd("adopt", *arguments)
            assert (ended.code, words in ended.err) == (code, True), ended.said
        members = "SELECT members FROM pgshepherd.shard"
        assert await one.on_shards(members) == ["{0,1,2}"] * 3, "nothing was forgotten by mistake"

        ended = await pgshepherd("adopt", "-f", gone, "--forget-shard", "2", *WHY)
        assert (ended.code, ended.out) == (0, "2 shards have forgotten member 2\n"), ended.said
        assert await one.on_shards(members) == ["{0,1}", "{0,1}", "{0,1,2}"]
        audit = "SELECT shard, reason FROM pgshepherd.audit WHERE action = 'forget'"
        assert await one.on_shards(audit) == ["2|disk lost: INC-7"] * 2 + [""]
        assert (await pgshepherd(*recover)).code == 0

        controller = one.recovery()
        controller.cleanup.retention = 0.05
        for _ in range(4):
            await asyncio.sleep(0.1)
            await controller.cleanup.run(one.targets()[:2], frozenset({0, 1}))
        assert controller.cleanup.held == {}
        assert int((await one.on_shards("SELECT retired FROM pgshepherd.shard"))[0]) > 0
