"""The three files as pydantic models: only the keys that do something here.

Invariant: a value that passed these models can be acted on without a further check.  Times are integer milliseconds in the files.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

Milliseconds = Annotated[int, Field(ge=0, le=9223372036854775807)]
Port = Annotated[int, Field(ge=1, le=65535)]
MonitoringPort = Annotated[int, Field(ge=0, le=65535)]
PoolSize = Annotated[int, Field(ge=1, le=10000)]
Durability = Literal["local", "replicated"]
Standbys = Literal["unknown", "none", "asynchronous", "synchronous"]
"""What replicates a shard, at best; `unknown`: nobody could look."""


class _Section(BaseModel):
    """Unknown keys were warned of before, so they are passed over here."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class General(_Section):
    """[general]"""

    host: str = "0.0.0.0"  # noqa: S104 - PgDog's default
    port: Port = 6432
    workers: Annotated[int, Field(ge=0, le=1024)] = 2
    default_pool_size: PoolSize = 10
    pooler_mode: Literal["transaction"] = "transaction"
    auth_type: Literal["scram"] = "scram"
    checkout_timeout: Milliseconds = 5000
    connect_timeout: Milliseconds = 5000
    idle_timeout: Milliseconds = 60000
    server_lifetime: Milliseconds = 86400000
    client_login_timeout: Milliseconds = 60000
    shutdown_timeout: Milliseconds = 60000
    two_phase_commit: bool = False
    two_phase_commit_auto: bool = False
    openmetrics_host: str = "0.0.0.0"  # noqa: S104 - PgDog's default
    openmetrics_port: MonitoringPort | None = None
    healthcheck_port: MonitoringPort | None = None
    log_level: Literal["trace", "debug", "info", "warn", "error"] = "info"


class Database(_Section):
    """[[databases]]: one shard of a logical database."""

    name: str
    host: str
    port: Port = 5432
    shard: Annotated[int, Field(ge=0, le=1023)] = 0
    database_name: str | None = None
    role: Literal["primary"] = "primary"
    pool_size: PoolSize | None = None


class ShardedTable(_Section):
    """[[sharded_tables]]"""

    database: str
    column: Annotated[str, Field(min_length=1)]
    name: str | None = None
    schema_name: str | None = Field(default=None, alias="schema")
    data_type: Literal["bigint", "varchar", "uuid"] = "bigint"
    hasher: Literal["postgres"] = "postgres"
    mapping: Annotated[list[object], Field(max_length=0)] = []


class OmnishardedTables(_Section):
    """[[omnisharded_tables]]: what is not sharded is omnisharded anyway."""

    database: str
    tables: list[str]


class PgdogFile(_Section):
    """pgdog.toml"""

    general: General = General()
    databases: list[Database]
    sharded_tables: list[ShardedTable] = []
    omnisharded_tables: list[OmnishardedTables] = []


class UserEntry(_Section):
    """[[users]]"""

    name: str
    database: str
    password: SecretStr
    pool_size: PoolSize | None = None
    server_user: str | None = None
    server_password: SecretStr | None = None
    two_phase_commit: bool | None = None
    two_phase_commit_auto: bool | None = None


class UsersFile(_Section):
    """users.toml"""

    users: list[UserEntry]


class ClusterSection(_Section):
    """[cluster] of pgshepherd.toml"""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    name: str = ""
    routing_hash: str = ""


class TwoPhaseSection(_Section):
    """[two_phase_commit] of pgshepherd.toml"""

    last_agent: bool = False
    durability: Durability = "local"
    prepare_timeout: Milliseconds = 60000
    resolution_timeout: Milliseconds = 10000
    finish_timeout: Milliseconds = 5000
    deadlock_timeout: Annotated[int, Field(ge=10)] = 1000
    slots_per_shard: Annotated[int, Field(ge=1, le=262143)] = 50
    slot_timeout: Milliseconds = 5000


class InstanceSection(_Section):
    """[instance] of pgshepherd.toml"""

    name: str = "proxy"


class ShardIdentity(_Section):
    """[[shards]] of pgshepherd.toml, in the order of the positions in pgdog.toml."""

    number: Annotated[int, Field(ge=0, le=2147483647)]
    name: str
    system_identifier: Annotated[int, Field(ge=1)]
    coordinator_user: str
    coordinator_password: SecretStr
    standbys: Standbys = "unknown"
    """As the operator last saw: read again while the proxy runs."""


class HealthSection(_Section):
    """[health] of pgshepherd.toml"""

    host: str = "0.0.0.0"  # noqa: S104 - probed by the kubelet from outside
    port: MonitoringPort = 8080


class PgshepherdFile(_Section):
    """pgshepherd.toml: everything of ours, which PgDog would refuse."""

    cluster: ClusterSection
    two_phase_commit: TwoPhaseSection = TwoPhaseSection()
    instance: InstanceSection = InstanceSection()
    health: HealthSection = HealthSection()
    shards: list[ShardIdentity]

    @model_validator(mode="after")
    def _numbers_are_unique(self) -> PgshepherdFile:
        numbers = [shard.number for shard in self.shards]
        if len(set(numbers)) != len(numbers):
            raise ValueError("two [[shards]] have the same number: each shard has one of its own, for ever")
        return self


class ProxyConfig(_Section):
    """All three files, checked against each other."""

    pgdog: PgdogFile
    users: UsersFile
    pgshepherd: PgshepherdFile | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> ProxyConfig:
        names = {database.name for database in self.pgdog.databases}
        if len(names) != 1:
            raise ValueError(f"pgdog.toml: databases must share one name (one logical database), found {sorted(names)}")
        positions = sorted(database.shard for database in self.pgdog.databases)
        if positions != list(range(len(positions))):
            raise ValueError(f"pgdog.toml: databases must have the shards 0 to {len(positions) - 1}, one each, found {positions}")
        if self.pgshepherd is not None and len(self.pgshepherd.shards) != len(positions):
            raise ValueError(
                f"pgshepherd.toml: [[shards]] has {len(self.pgshepherd.shards)} entries, pgdog.toml {len(positions)}"
            )
        users = [user.name for user in self.users.users]
        if len(set(users)) != len(users):
            twice = sorted({name for name in users if users.count(name) > 1})
            raise ValueError(f"users.toml: each user has one [[users]] entry, found two of {twice}")
        mentioned = [*(table.database for table in self.pgdog.sharded_tables), *(user.database for user in self.users.users)]
        for name in mentioned:
            if name not in names:
                raise ValueError(f"no [[databases]] entry is named {name!r}; there is only {sorted(names)}")
        return self
