"""What a caller of the command line can rely on: 2 for usage, 3 for a manifest that can't be read, never a traceback or a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import PASSWORD, Bench, Servers, bench
from commands import pgshepherd
from manifests import Place, write_manifest
from shardoperator.standalone.postgres.server import free_port

WITH_A_MANIFEST = [("check",), ("check", "--sql"), ("run",), ("adopt",), ("render",), ("recover",), ("transactions", "list")]


@pytest.mark.parametrize("verb", WITH_A_MANIFEST, ids=" ".join)
async def test_a_manifest_that_cannot_be_read(verb: tuple[str, ...], tmp_path: Path) -> None:
    missing = await pgshepherd(*verb, "-f", str(tmp_path / "none.yaml"))
    assert (missing.code, missing.out) == (3, "")
    assert "none.yaml can't be read: No such file or directory" in missing.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1\n", "shop.yaml is not valid YAML: line 2, column 1"),
        ("a: 1\n", "shop.yaml must hold exactly one ShardedCluster, it holds 0"),
        ("kind: ShardedCluster\nspec: {}\n", "shop.yaml: spec.database: Field required"),
        (f"kind: ShardedCluster\n---\nkind: Secret\nmetadata: {{name: x}}\nstringData: {{password: *{PASSWORD}}}\n", "line 5"),
    ],
)
async def test_a_manifest_that_is_wrong(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(text)
    ended = await pgshepherd("check", "-f", str(path))
    assert (ended.code, ended.out) == (3, "")
    assert words in ended.err
    assert PASSWORD not in ended.said


async def test_a_secret_that_cannot_be_read(tmp_path: Path) -> None:
    manifest = write_manifest(
        tmp_path / "shop.yaml", [Place(1, "a"), Place(2, "b")], shard={"credentialsSecretRef": {"name": "of-folder"}}
    )
    (tmp_path / "secrets" / "of-folder" / "username").mkdir(parents=True)
    ended = await pgshepherd("check", "-f", str(manifest), "--secrets", str(tmp_path / "secrets"))
    assert (ended.code, ended.out) == (3, "")
    assert "Secret of-folder, key username" in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("check",),
        ("check", "-f"),
        ("check", "-f", "shop.yaml", "--no-such-option"),
        ("check", "-f", "shop.yaml", "-o", "xml"),
        ("no-such-verb",),
        ("hash", "x", "--type", "bigint"),
        ("hash", "1", "--type", "money"),
    ],
    ids=" ".join,
)
async def test_usage(arguments: tuple[str, ...]) -> None:
    ended = await pgshepherd(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err


@pytest.mark.parametrize("http", ["nowhere", "127.0.0.1:", "127.0.0.1:99999"])
async def test_run_with_a_bad_address(http: str, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "shop.yaml", [Place(1, "a"), Place(2, "b")])
    ended = await pgshepherd("run", "-f", str(manifest), "--http", http, "--state", str(tmp_path))
    assert ended.code == 2
    assert f"--http takes HOST:PORT, not '{http}'" in ended.err


async def test_status_where_nobody_or_somebody_else_listens(pair: Bench) -> None:
    for port in (free_port(), pair.servers[0].port):
        ended = await pgshepherd("status", "--http", f"127.0.0.1:{port}")
        assert ended.code == 1
        assert "is `pgshepherd run` running?" in ended.err


async def test_adopt(servers: Servers, pair: Bench, tmp_path: Path) -> None:
    """Twice is once; what is not as it must be is refused before anything is written."""
    manifest = write_manifest(tmp_path / "shop.yaml", [Place(server.port, pair.database) for server in pair.servers])
    ended = await pgshepherd("adopt", "-f", str(manifest))
    assert (ended.code, ended.out) == (0, f"2 shards belong to cluster {pair.cluster_id}\n")
    other_id = "f" * 16
    manifest = write_manifest(
        tmp_path / "shop.yaml", [Place(server.port, pair.database) for server in pair.servers], clusterID=other_id
    )
    ended = await pgshepherd("adopt", "-f", str(manifest))
    assert (ended.code, ended.out) == (1, "")
    assert f"spec.clusterID says {other_id}" in ended.err
    database = f"{pair.database}_empty"
    await servers.servers[1].psql(f"CREATE DATABASE {database}")
    manifest = write_manifest(
        tmp_path / "shop.yaml", [Place(pair.servers[0].port, pair.database), Place(servers.servers[1].port, database)]
    )
    ended = await pgshepherd("adopt", "-f", str(manifest))
    assert (ended.code, ended.out) == (1, "")
    assert "the schema pgshepherd is not there" in ended.err
    assert PASSWORD not in ended.said


async def test_adopt_refuses_a_shard_of_another_cluster(servers: Servers, pair: Bench, tmp_path: Path) -> None:
    async with bench(servers, 2) as other:
        places = [Place(pair.servers[0].port, pair.database), Place(other.servers[1].port, other.database)]
        ended = await pgshepherd("adopt", "-f", str(write_manifest(tmp_path / "shop.yaml", places)))
        assert (ended.code, ended.out) == (1, "")
        assert other.cluster_id in ended.err
        rows = await other.on_shards("SELECT cluster, members FROM pgshepherd.shard")
        assert rows == [f"{other.cluster_id}|{{0,1}}"] * 2
