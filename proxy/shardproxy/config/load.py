"""Reading and writing the three files.

Invariant: what `render` writes, `load` reads back as the same models, and PgDog's own files hold none but PgDog's keys.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, SecretStr, ValidationError

from shardproxy.config.environment import ROUTING_VARIABLE, pgdog_defaults, pgshepherd_defaults
from shardproxy.config.keys import PGDOG_SECTIONS, USER_KEYS
from shardproxy.config.models import PgdogFile, PgshepherdFile, ProxyConfig, Standbys, UsersFile
from shardproxy.errors import ConfigError

M = TypeVar("M", bound=BaseModel)

PGSHEPHERD_FILE = "pgshepherd.toml"
"""Found beside pgdog.toml when it is not named."""


@dataclass(frozen=True)
class LoadedConfig:
    """The configuration, and what its reader should know."""

    config: ProxyConfig
    warnings: tuple[str, ...]
    pgshepherd: Path | None = None
    """Where pgshepherd.toml is."""


def load(pgdog: Path, users: Path, pgshepherd: Path | None = None) -> LoadedConfig:
    """Read the files; raises ConfigError with file, key, value and what is allowed."""
    beside = pgshepherd or pgdog.parent / PGSHEPHERD_FILE
    pgdog_data, users_data = _read(pgdog), _read(users)
    ours = _read(beside) if pgshepherd is not None or beside.exists() else None
    warnings = [*_unknown_pgdog(pgdog.name, pgdog_data), *_unknown_users(users.name, users_data)]
    if ours is not None:
        warnings.extend(_unknown_ours(beside.name, ours, PgshepherdFile))
    parts = {
        "pgdog": _validate(pgdog.name, PgdogFile, pgdog_defaults(pgdog_data, os.environ)),
        "users": _validate(users.name, UsersFile, users_data),
        "pgshepherd": _validate(beside.name, PgshepherdFile, pgshepherd_defaults(ours, os.environ)) if ours is not None else None,
    }
    try:
        config = ProxyConfig.model_validate(parts)
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    _check_routing(config, os.environ.get(ROUTING_VARIABLE))
    if ours is None and config.pgdog.general.two_phase_commit:
        warnings.append(f"no {PGSHEPHERD_FILE}: writes on several shards will be refused, because two_phase_commit is on")
    return LoadedConfig(config, tuple(warnings), beside if ours is not None else None)


def read_standbys(path: Path, cluster_id: str) -> dict[int, Standbys]:
    """What replicates each shard, by number, as pgshepherd.toml says now; raises ConfigError, also where it is another cluster's."""
    file = _validate(path.name, PgshepherdFile, pgshepherd_defaults(_read(path), os.environ))
    if file.cluster.id != cluster_id:
        raise ConfigError(f"{path.name}: it is of cluster {file.cluster.id} now, this instance serves {cluster_id}")
    return {shard.number: shard.standbys for shard in file.shards}


def _check_routing(config: ProxyConfig, wanted: str | None) -> None:
    found = config.pgshepherd.cluster.routing_hash if config.pgshepherd is not None else ""
    if wanted and wanted != found:
        raise ConfigError(
            f"{PGSHEPHERD_FILE}: cluster.routing_hash is {found!r}, this instance was started for {wanted!r} ({ROUTING_VARIABLE}): "
            "two routing maps must not be alive together; the instance that was started for this file serves it"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path.name} can't be read: {error.strerror} ({path})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is not valid TOML: {error}") from error


def _validate(name: str, model: type[M], data: Mapping[str, Any]) -> M:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_complaint(name, one) for one in error.errors())) from None


def _complaint(name: str, error: Any) -> str:
    if error["type"] == "missing":
        return f"{name}: {_where(error['loc'])} is missing"
    return f"{name}: {_where(error['loc'])} = {_shown(error)}: {error['msg'].removeprefix('Value error, ')}"


def _where(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".") or "the file"


def _shown(error: Any) -> str:
    """The value, unless it may be a secret or a whole section."""
    value = error["input"]
    secret = any("password" in str(part) for part in error["loc"])
    return "(not shown)" if secret or isinstance(value, dict | list) else repr(value)


def _sections(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for section, content in data.items():
        for entry in content if isinstance(content, list) else [content]:
            if isinstance(entry, dict):
                yield section, entry


def _unknown_pgdog(name: str, data: Mapping[str, Any]) -> Iterator[str]:
    for section, entry in _sections(data):
        if section not in PGDOG_SECTIONS:
            yield f"{name}: unknown section [{section}] is ignored"
            continue
        supported = _supported(PgdogFile, section)
        for key in entry:
            if key not in PGDOG_SECTIONS[section]:
                yield f"{name}: unknown key {section}.{key} is ignored"
            elif key not in supported:
                yield f"{name}: {section}.{key} is a key of PgDog's that pgshepherd does not support yet; it is ignored"


def _unknown_users(name: str, data: Mapping[str, Any]) -> Iterator[str]:
    supported = _supported(UsersFile, "users")
    for section, entry in _sections(data):
        if section != "users":
            yield f"{name}: section [{section}] is ignored"
            continue
        for key in entry:
            if key not in USER_KEYS:
                yield f"{name}: unknown key users.{key} is ignored"
            elif key not in supported:
                yield f"{name}: users.{key} is a key of PgDog's that pgshepherd does not support yet; it is ignored"


def _unknown_ours(name: str, data: Mapping[str, Any], model: type[BaseModel]) -> Iterator[str]:
    for section, entry in _sections(data):
        for key in entry:
            if key not in _supported(model, section):
                yield f"{name}: unknown key {section}.{key} is ignored"


def _supported(model: type[BaseModel], section: str) -> frozenset[str]:
    field = model.model_fields.get(section)
    if field is None:
        return frozenset()
    annotation: Any = field.annotation
    inner = getattr(annotation, "__args__", (annotation,))[0]
    return frozenset(one.alias or key for key, one in inner.model_fields.items())


def render(config: ProxyConfig) -> dict[str, str]:
    """The texts of the files by name; users.toml and pgshepherd.toml hold passwords.

    A key that was not set is left open, so that the environment of an instance may give it.
    """
    files = {"pgdog.toml": tomli_w.dumps(_plain(config.pgdog)), "users.toml": tomli_w.dumps(_plain(config.users))}
    if config.pgshepherd is not None:
        files[PGSHEPHERD_FILE] = tomli_w.dumps(_plain(config.pgshepherd))
    return files


def _plain(model: BaseModel) -> dict[str, Any]:
    data = {key: _value(value) for key, value in model if value is not None and key in model.model_fields_set}
    aliases = {key: field.alias for key, field in type(model).model_fields.items() if field.alias}
    return {aliases.get(key, key): value for key, value in data.items() if value != []}


def _value(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        return _plain(value)
    if isinstance(value, list):
        return [_value(one) for one in value]
    return value
