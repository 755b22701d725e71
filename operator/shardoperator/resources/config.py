"""The proxy's three files for a ShardedCluster."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from shardoperator.models.spec import ShardedCluster
from shardoperator.names import HEALTH_PORT, METRICS_PORT, SQL_PORT
from shardproxy.config import models as proxy
from shardproxy.config.load import render


@dataclass(frozen=True)
class Logins:
    """What the Secrets of a cluster say."""

    coordinators: Sequence[tuple[str, str]] = field(repr=False)
    """User and password on each shard, by position."""
    users: Mapping[str, str] = field(repr=False)
    """Password by application user."""


@dataclass(frozen=True)
class Listen:
    """Where one proxy listens; on Kubernetes the same for all, and what differs comes from the pod's environment."""

    host: str | None = None
    """None: left to the environment, and by default all addresses."""
    port: int = SQL_PORT
    metrics_port: int = METRICS_PORT
    health_port: int = HEALTH_PORT
    instance: str | None = None
    """None: left to the environment."""
    shutdown_timeout: float = 60.0
    """Seconds in which a proxy finishes what was decided, after SIGTERM."""


@dataclass(frozen=True)
class RenderedConfig:
    """The files and what tells one rendering from the next."""

    files: Mapping[str, str] = field(repr=False)
    config_hash: str
    """Of everything but what replicates the shards: another one rolls the proxies."""
    routing_hash: str
    """Of shards, mappings and keys: two of them must never be alive together."""


def routing_hash(cluster: ShardedCluster, cluster_id: str) -> str:
    """Of what decides where a row lives."""
    spec = cluster.spec
    shards = [(spec.number(position), shard.name) for position, shard in enumerate(spec.shards)]
    tables = [table.model_dump() for table in spec.sharded_tables]
    return hashlib.sha256(json.dumps([cluster_id, shards, tables], sort_keys=True).encode()).hexdigest()[:16]


def render_config(
    cluster: ShardedCluster,
    cluster_id: str,
    system_identifiers: Sequence[int],
    logins: Logins,
    listen: Listen,
    standbys: Sequence[proxy.Standbys] | None = None,
) -> RenderedConfig:
    """`system_identifiers` by position, as adopted, and `standbys`, as seen: proxies read those again while they run."""
    config = proxy.ProxyConfig(
        pgdog=_pgdog(cluster, listen),
        users=proxy.UsersFile(
            users=[
                proxy.UserEntry(name=user.name, database=cluster.spec.database, password=SecretStr(logins.users[user.name]))
                for user in cluster.spec.users
            ]
        ),
        pgshepherd=_pgshepherd(cluster, cluster_id, system_identifiers, logins, listen),
    )
    files = render(config)
    digest = hashlib.sha256("\0".join(f"{name}\0{text}" for name, text in sorted(files.items())).encode()).hexdigest()[:16]
    asked = cluster.spec.two_phase_commit
    if standbys is not None and (asked.last_agent or asked.durability == "replicated"):
        files = render(_replicated(config, standbys))
    return RenderedConfig(files, digest, routing_hash(cluster, cluster_id))


def _replicated(config: proxy.ProxyConfig, standbys: Sequence[proxy.Standbys]) -> proxy.ProxyConfig:
    assert config.pgshepherd is not None
    pairs = zip(config.pgshepherd.shards, standbys, strict=True)
    shards = [shard.model_copy(update={"standbys": seen}) for shard, seen in pairs]
    return config.model_copy(update={"pgshepherd": config.pgshepherd.model_copy(update={"shards": shards})})


def _pgdog(cluster: ShardedCluster, listen: Listen) -> proxy.PgdogFile:
    spec = cluster.spec
    hosts: dict[str, Any] = {"host": listen.host, "openmetrics_host": listen.host} if listen.host is not None else {}
    return proxy.PgdogFile(
        general=proxy.General(
            **hosts,
            port=listen.port,
            workers=1,
            default_pool_size=spec.proxy.pool_size,
            two_phase_commit=spec.two_phase_commit.enabled,
            two_phase_commit_auto=spec.two_phase_commit.auto,
            openmetrics_port=listen.metrics_port,
            shutdown_timeout=int(listen.shutdown_timeout * 1000),
        ),
        databases=[
            proxy.Database(name=spec.database, host=shard.host, port=shard.port, shard=position, database_name=shard.database)
            for position, shard in enumerate(spec.shards)
        ],
        sharded_tables=[
            proxy.ShardedTable(
                database=spec.database, column=table.column, name=table.name, schema=table.schema_name, data_type=table.data_type
            )
            for table in spec.sharded_tables
        ],
    )


def _pgshepherd(
    cluster: ShardedCluster, cluster_id: str, system_identifiers: Sequence[int], logins: Logins, listen: Listen
) -> proxy.PgshepherdFile:
    spec = cluster.spec
    instance = {"name": listen.instance} if listen.instance is not None else {}
    health = {"host": listen.host} if listen.host is not None else {}
    return proxy.PgshepherdFile(
        cluster=proxy.ClusterSection(id=cluster_id, name=cluster.metadata.name, routing_hash=routing_hash(cluster, cluster_id)),
        two_phase_commit=proxy.TwoPhaseSection(
            slots_per_shard=spec.proxy.slots_per_shard,
            last_agent=spec.two_phase_commit.last_agent,
            durability=spec.two_phase_commit.durability,
        ),
        instance=proxy.InstanceSection(**instance),
        health=proxy.HealthSection(**health, port=listen.health_port),
        shards=[
            proxy.ShardIdentity(
                number=spec.number(position),
                name=shard.name,
                system_identifier=system_identifiers[position],
                coordinator_user=logins.coordinators[position][0],
                coordinator_password=SecretStr(logins.coordinators[position][1]),
            )
            for position, shard in enumerate(spec.shards)
        ],
    )
