"""ShardedCluster.spec: what a user writes.

Invariant: accepted here if and only if by the API server under crds/shardedclusters.yaml; so values are never coerced, a null is an
absent field, and the rules between fields have the same words in both places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from shardoperator.models.values import (
    ClusterId,
    ClusterName,
    Duration,
    Host,
    Identifier,
    Name,
    PerProxy,
    Port,
    Replicas,
    SecretKey,
    SecretName,
    ShardNumber,
)

MAX_SHARDS = 64
"""The API server compares each shard's place with each other's, at every write."""

UNIQUE_PLACES = "host, port and database must be unique"
ASCENDING = (
    "shards must stand in ascending order of their numbers, each number once: the position decides which rows a shard holds"
)
ONE_KEY = "each table (schema and name), or column of all tables (schema and column, without a name), may be listed once"


class Model(BaseModel):
    """camelCase, nothing coerced, unknown fields refused."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        known = {field.alias for field in cls.model_fields.values()}
        return (
            {key: value for key, value in data.items() if value is not None or key not in known}
            if isinstance(data, dict)
            else data
        )


class LoginRef(Model):
    """A basic-auth Secret, as CloudNativePG makes them; other key names can be given."""

    name: SecretName
    username_key: SecretKey = "username"
    password_key: SecretKey = "password"  # noqa: S105 - the name of a key


class PasswordRef(Model):
    """One key of a Secret."""

    name: SecretName
    key: SecretKey = "password"


class Shard(Model):
    """One existing PostgreSQL database."""

    name: Name
    number: ShardNumber | None = None
    """Defaults to the position; fixed for ever and never reused."""
    host: Host
    port: Port = 5432
    database: Identifier
    credentials_secret_ref: LoginRef
    coordinator_secret_ref: LoginRef | None = None
    installer_secret_ref: LoginRef | None = None


class User(Model):
    """An application's login, the same on the proxy and on every shard."""

    name: Identifier
    password_secret_ref: PasswordRef


class ShardedTable(Model):
    """A table, or every table with this column."""

    column: Identifier
    data_type: Literal["bigint", "varchar", "uuid"] = "bigint"
    name: Identifier | None = None
    schema_name: Identifier | None = Field(default=None, alias="schema")


class TwoPhaseCommit(Model):
    """How transactions over several shards are committed."""

    enabled: bool = True
    auto: bool = True
    last_agent: bool = False
    durability: Literal["local", "replicated"] = "local"
    record_retention: Duration = "10m"


class Proxy(Model):
    """The proxies."""

    replicas: Replicas = 2
    port: Port = 6432
    pool_size: PerProxy = 10
    slots_per_shard: PerProxy = 20
    """Prepared transactions that one proxy may have on one shard."""


class Recovery(Model):
    """The recovery controller."""

    mode: Literal["Observe", "Resolve"] = "Resolve"
    grace_period: Duration = "5s"
    alert_after: Duration = "10m"


def _numbers(shards: Sequence[Shard]) -> list[int]:
    return [position if shard.number is None else shard.number for position, shard in enumerate(shards)]


def _shards(shards: list[Shard]) -> list[Shard]:
    _unique("shard names must be unique", [shard.name for shard in shards])
    _unique(UNIQUE_PLACES, [(shard.host, shard.port, shard.database) for shard in shards])
    numbers = _numbers(shards)
    for shard, number, before in zip(shards[1:], numbers[1:], numbers, strict=False):
        if number <= before:
            raise ValueError(f"{ASCENDING}; {shard.name} has {number}, the one before it {before}")
    return shards


def _users(users: list[User]) -> list[User]:
    _unique("user names must be unique", [user.name for user in users])
    return users


def _tables(tables: list[ShardedTable]) -> list[ShardedTable]:
    _unique(ONE_KEY, [(one.schema_name, one.name, None if one.name else one.column) for one in tables])
    return tables


def _unique(rule: str, values: Sequence[object]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            shown = ", ".join(str(part) for part in value if part is not None) if isinstance(value, tuple) else value
            raise ValueError(f"{rule}; twice: {shown}")
        seen.add(value)


class Spec(Model):
    """The whole."""

    database: Identifier
    cluster_id: ClusterId | None = Field(default=None, alias="clusterID")
    shards: Annotated[list[Shard], Field(min_length=1, max_length=MAX_SHARDS), AfterValidator(_shards)]
    users: Annotated[list[User], Field(min_length=1, max_length=256), AfterValidator(_users)]
    sharded_tables: Annotated[list[ShardedTable], Field(max_length=128), AfterValidator(_tables)] = []
    two_phase_commit: TwoPhaseCommit = TwoPhaseCommit()
    proxy: Proxy = Proxy()
    recovery: Recovery = Recovery()

    def number(self, position: int) -> int:
        """A shard's number, which defaults to its position."""
        return _numbers(self.shards)[position]

    @property
    def numbers(self) -> dict[str, int]:
        """By shard name."""
        return dict(zip((shard.name for shard in self.shards), _numbers(self.shards), strict=True))


class Metadata(BaseModel):
    """What we need of an object's metadata; the rest is Kubernetes's own, and may grow."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, strict=True)

    name: ClusterName
    namespace: Name = "default"
    uid: str = ""
    generation: int = 1
    annotations: dict[str, str] = {}
    deletion_timestamp: str | None = None
    """Set by Kubernetes once somebody has deleted the object."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data

    def says(self, annotation: str) -> bool:
        """Whether an annotation is `true`."""
        return self.annotations.get(annotation, "").lower() == "true"


class ShardedCluster(Model):
    """The object."""

    api_version: Literal["pgshepherd.io/v1alpha1"]
    kind: Literal["ShardedCluster"]
    metadata: Metadata
    spec: Spec
    status: Any = Field(default=None, exclude=True, repr=False)
    """May stand in a file that `kubectl get -o yaml` wrote; never read."""
