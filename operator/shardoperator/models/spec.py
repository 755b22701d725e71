"""ShardedCluster.spec: what a user writes."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")


def seconds(duration: str) -> float:
    """`1h30m`, `10m`, `2.5s` in seconds; raises ValueError for anything else."""
    match = _DURATION.fullmatch(duration)
    if match is None or not duration:
        raise ValueError("a duration is written like 5s, 10m or 1h30m")
    hours, minutes, rest = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(rest or 0)


def _duration(text: str) -> str:
    seconds(text)
    return text


Duration = Annotated[str, AfterValidator(_duration), Field(max_length=32)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Identifier = Annotated[str, Field(min_length=1, max_length=63)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Model(BaseModel):
    """camelCase outside, unknown fields refused."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class LoginRef(Model):
    """A basic-auth Secret, as CloudNativePG makes them; other key names can be given."""

    name: Name
    username_key: Identifier = "username"
    password_key: Identifier = "password"  # noqa: S105 - the name of a key


class PasswordRef(Model):
    """One key of a Secret."""

    name: Name
    key: Identifier = "password"


class Shard(Model):
    """One existing PostgreSQL database."""

    name: Name
    number: Annotated[int, Field(ge=0, le=2147483647)] | None = None
    """Defaults to the position; fixed for ever and never reused."""
    host: Annotated[str, Field(min_length=1, max_length=253)]
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
    last_agent: Literal[False] = False
    durability: Literal["local"] = "local"
    record_retention: Duration = "10m"


class Proxy(Model):
    """The proxies."""

    replicas: Annotated[int, Field(ge=0, le=100)] = 2
    port: Port = 6432
    pool_size: Annotated[int, Field(ge=1, le=10000)] = 10
    slots_per_shard: Annotated[int, Field(ge=1, le=10000)] = 20
    """Prepared transactions that one proxy may have on one shard."""


class Recovery(Model):
    """The recovery controller."""

    mode: Literal["Observe", "Resolve"] = "Resolve"
    grace_period: Duration = "5s"
    alert_after: Duration = "10m"


class Spec(Model):
    """The whole."""

    database: Identifier
    cluster_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = Field(default=None, alias="clusterID")
    shards: Annotated[list[Shard], Field(min_length=1, max_length=256)]
    users: Annotated[list[User], Field(min_length=1, max_length=256)]
    sharded_tables: Annotated[list[ShardedTable], Field(max_length=256)] = []
    two_phase_commit: TwoPhaseCommit = TwoPhaseCommit()
    proxy: Proxy = Proxy()
    recovery: Recovery = Recovery()

    def number(self, position: int) -> int:
        """A shard's number, which defaults to its position."""
        number = self.shards[position].number
        return position if number is None else number

    @model_validator(mode="after")
    def _no_duplicates(self) -> Spec:
        _unique("shards[].name", [shard.name for shard in self.shards])
        _unique("shards[].number", [self.number(position) for position in range(len(self.shards))])
        _unique("shards[]: host, port and database", [(shard.host, shard.port, shard.database) for shard in self.shards])
        _unique("users[].name", [user.name for user in self.users])
        return self


def _unique(what: str, values: list[object] | list[str] | list[int] | list[tuple[str, int, str]]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what} must be unique, {value!r} stands there twice")
        seen.add(value)


class Metadata(BaseModel):
    """What we need of an object's metadata."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)

    name: Name
    namespace: str = "default"
    uid: str = ""
    generation: int = 1
    annotations: dict[str, str] = {}
    deletion_timestamp: str | None = None
    """Set by Kubernetes once somebody has deleted the object."""

    def says(self, annotation: str) -> bool:
        """Whether an annotation is `true`."""
        return self.annotations.get(annotation, "").lower() == "true"


class ShardedCluster(BaseModel):
    """The object."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    api_version: Literal["pgshepherd.io/v1alpha1"] = Field(alias="apiVersion")
    kind: Literal["ShardedCluster"]
    metadata: Metadata
    spec: Spec
