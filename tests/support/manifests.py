"""Manifest files for the command line, over any servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench import PASSWORD
from shardoperator.standalone.postgres.server import free_port


@dataclass(frozen=True)
class Place:
    """Where a shard is."""

    port: int
    database: str
    host: str = "127.0.0.1"


def write_manifest(
    path: Path,
    places: Sequence[Place],
    *,
    logins: Mapping[str, tuple[str, str]] | None = None,
    shard: Mapping[str, Any] | None = None,
    **spec: Any,
) -> Path:
    """`logins`: user and password by Secret; `shard`: more keys for each shard; `spec`: more keys of the spec."""
    secrets = {"recovery": ("recovery", PASSWORD), "app": ("app", PASSWORD), **(logins or {})}
    shards = [
        {
            "name": f"shop-{number}",
            "host": place.host,
            "port": place.port,
            "database": place.database,
            "credentialsSecretRef": {"name": "recovery"},
            **(shard or {}),
        }
        for number, place in enumerate(places)
    ]
    body = {
        "database": "shop",
        "shards": shards,
        "users": [{"name": "app", "passwordSecretRef": {"name": "app"}}],
        "shardedTables": [{"column": "customer_id"}],
        "proxy": {"replicas": 1, "port": free_port()},
        **spec,
    }
    cluster = {"apiVersion": "pgshepherd.io/v1alpha1", "kind": "ShardedCluster", "metadata": {"name": "shop"}, "spec": body}
    documents = [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"username": user, "password": password}}
        for name, (user, password) in secrets.items()
    ]
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump_all([cluster, *documents], sort_keys=False))
    return path
