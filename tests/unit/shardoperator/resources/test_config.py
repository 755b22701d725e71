"""What is rendered, the proxy accepts without a warning, PgDog would too, and a hash moves exactly when its matter does."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from observed import CLUSTER_ID, cluster
from shardoperator.models.spec import ShardedCluster
from shardoperator.resources.config import Listen, Logins, RenderedConfig, render_config
from shardproxy.config.keys import PGDOG_SECTIONS, USER_KEYS
from shardproxy.config.load import load, read_standbys
from shardproxy.config.models import Standbys
from shardproxy.errors import ConfigError

SECRET = 's3cret "quoted" \\ \'é'
LOGINS = Logins([("coordinator", SECRET)] * 2, {"app": SECRET})
FULL: Mapping[str, Any] = {
    "shards": [
        {
            "name": "a",
            "host": "a.example",
            "port": 5433,
            "database": "shop_a",
            "number": 3,
            "credentialsSecretRef": {"name": "r"},
        },
        {"name": "b", "host": "b.example", "database": "shop_b", "number": 7, "credentialsSecretRef": {"name": "r"}},
    ],
    "shardedTables": [
        {"column": "customer_id"},
        {"column": "word", "dataType": "varchar", "name": "words", "schema": "public"},
        {"column": "thing", "dataType": "uuid", "name": "things"},
    ],
    "twoPhaseCommit": {"enabled": True, "auto": False},
    "proxy": {"replicas": 3, "port": 7432, "poolSize": 7, "slotsPerShard": 9},
}


def rendered(
    of: ShardedCluster, *, logins: Logins = LOGINS, listen: Listen | None = None, cluster_id: str = CLUSTER_ID
) -> RenderedConfig:
    return render_config(of, cluster_id, [11, 12], logins, listen or Listen())


def written(config: RenderedConfig, directory: Path) -> tuple[Path, Path]:
    for name, text in config.files.items():
        (directory / name).write_text(text, encoding="utf-8")
    return directory / "pgdog.toml", directory / "users.toml"


@pytest.mark.parametrize("spec", [{}, FULL, {"shardedTables": [], "twoPhaseCommit": {"enabled": False}}])
def test_the_proxy_accepts_it_without_a_warning(spec: dict[str, Any], tmp_path: Path) -> None:
    loaded = load(*written(rendered(cluster(**spec)), tmp_path))
    assert loaded.warnings == ()


@pytest.mark.parametrize("spec", [{}, FULL])
def test_pgdogs_files_hold_none_but_pgdogs_keys(spec: dict[str, Any]) -> None:
    files = rendered(cluster(**spec)).files
    sections = {**tomllib.loads(files["pgdog.toml"]), **tomllib.loads(files["users.toml"])}
    known = {**PGDOG_SECTIONS, "users": USER_KEYS}
    for section, content in sections.items():
        for entry in content if isinstance(content, list) else [content]:
            assert entry.keys() <= known[section], section


def test_what_the_spec_says_is_what_the_proxy_reads(tmp_path: Path) -> None:
    config = load(*written(rendered(cluster(**FULL)), tmp_path)).config
    databases = [(one.name, one.host, one.port, one.shard, one.database_name) for one in config.pgdog.databases]
    assert databases == [("shop", "a.example", 5433, 0, "shop_a"), ("shop", "b.example", 5432, 1, "shop_b")]
    tables = [(one.column, one.data_type, one.name, one.schema_name) for one in config.pgdog.sharded_tables]
    assert tables == [
        ("customer_id", "bigint", None, None),
        ("word", "varchar", "words", "public"),
        ("thing", "uuid", "things", None),
    ]
    general = config.pgdog.general
    assert (general.two_phase_commit, general.two_phase_commit_auto, general.default_pool_size) == (True, False, 7)
    assert config.users.users[0].password.get_secret_value() == SECRET
    ours = config.pgshepherd
    assert ours is not None
    assert (ours.cluster.id, ours.two_phase_commit.slots_per_shard) == (CLUSTER_ID, 9)
    assert [(one.number, one.name, one.system_identifier) for one in ours.shards] == [(3, "a", 11), (7, "b", 12)]
    assert ours.shards[0].coordinator_password.get_secret_value() == SECRET


def test_ports_come_from_the_platform(tmp_path: Path) -> None:
    listen = Listen("127.0.0.1", 1111, 2222, 3333, "shop-proxy-0")
    config = load(*written(rendered(cluster(), listen=listen), tmp_path)).config
    assert config.pgshepherd is not None
    found = (config.pgdog.general.port, config.pgdog.general.openmetrics_port, config.pgshepherd.health.port)
    assert (*found, config.pgshepherd.instance.name) == (1111, 2222, 3333, "shop-proxy-0")


def test_no_secret_in_a_repr_or_in_pgdog_toml() -> None:
    config = rendered(cluster())
    assert "s3cret" not in repr(config)
    assert "s3cret" not in repr(LOGINS)
    assert "s3cret" not in config.files["pgdog.toml"]


SEEN: list[list[Standbys]] = [["synchronous", "none"], ["asynchronous", "unknown"]]
BASE = rendered(cluster())
ROUTING: list[RenderedConfig] = [
    rendered(cluster(), cluster_id="f" * 16),
    rendered(cluster(shardedTables=[{"column": "customer_id", "dataType": "uuid"}])),
    rendered(cluster(shardedTables=[{"column": "client_id"}])),
    rendered(cluster(shardedTables=[])),
    rendered(cluster(shards=FULL["shards"])),
]
HARMLESS: list[RenderedConfig] = [
    rendered(cluster(proxy={"replicas": 2, "slotsPerShard": 10, "poolSize": 11})),
    rendered(cluster(), logins=replace(LOGINS, users={"app": "another"})),
    rendered(cluster(), logins=replace(LOGINS, coordinators=[("coordinator", "another")] * 2)),
    rendered(cluster(twoPhaseCommit={"enabled": True, "auto": False})),
    rendered(cluster(), listen=Listen(port=7432)),
]


@pytest.mark.parametrize("asked", [{"lastAgent": True}, {"durability": "replicated"}])
def test_what_replicates_the_shards_is_told_without_rolling_the_proxies(asked: dict[str, Any], tmp_path: Path) -> None:
    made = [render_config(cluster(twoPhaseCommit=asked), CLUSTER_ID, [11, 12], LOGINS, Listen(), seen) for seen in SEEN]
    assert made[0].files != made[1].files
    assert made[0].config_hash == made[1].config_hash != BASE.config_hash
    for config, seen in zip(made, SEEN, strict=True):
        loaded = load(*written(config, tmp_path))
        assert loaded.warnings == ()
        assert loaded.pgshepherd is not None
        assert read_standbys(loaded.pgshepherd, CLUSTER_ID) == dict(enumerate(seen))
    with pytest.raises(ConfigError, match="this instance serves"):
        read_standbys(tmp_path / "pgshepherd.toml", "f" * 16)


def test_nobody_is_told_what_nobody_asks_for() -> None:
    assert [render_config(cluster(), CLUSTER_ID, [11, 12], LOGINS, Listen(), seen).files for seen in SEEN] == [BASE.files] * 2


def test_the_same_input_gives_the_same_files() -> None:
    again = rendered(cluster())
    assert (again.files, again.config_hash, again.routing_hash) == (BASE.files, BASE.config_hash, BASE.routing_hash)


@pytest.mark.parametrize("changed", ROUTING)
def test_what_decides_where_a_row_lives_moves_both_hashes(changed: RenderedConfig) -> None:
    assert changed.routing_hash != BASE.routing_hash
    assert changed.config_hash != BASE.config_hash


@pytest.mark.parametrize("changed", HARMLESS)
def test_anything_else_moves_the_config_hash_only(changed: RenderedConfig) -> None:
    assert changed.routing_hash == BASE.routing_hash
    assert changed.config_hash != BASE.config_hash
