"""Defaults from the environment: PGDOG_<KEY> for [general], as PgDog has them, and ours for what differs between two instances.

Invariant: a key that stands in a file wins.  So one set of files serves every replica of a Deployment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shardproxy.config.models import General

PER_INSTANCE: Mapping[tuple[str, str], str] = {
    ("instance", "name"): "PGSHEPHERD_INSTANCE_NAME",
    ("health", "host"): "PGSHEPHERD_HEALTH_HOST",
    ("health", "port"): "PGSHEPHERD_HEALTH_PORT",
}
"""Keys of pgshepherd.toml by section and key."""

ROUTING_VARIABLE = "PGSHEPHERD_ROUTING_HASH"
"""If set, the only routing hash that this instance may serve: its files may be replaced under it by those of the next routing map."""


def pgdog_defaults(data: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """pgdog.toml's data with every key of [general] that it leaves open and the environment names."""
    general = data.get("general", {})
    if not isinstance(general, dict):
        return dict(data)
    named = {key: environment.get(f"PGDOG_{key.upper()}") for key in General.model_fields if key not in general}
    return {**data, "general": {**general, **{key: value for key, value in named.items() if value is not None}}}


def pgshepherd_defaults(data: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """The same for pgshepherd.toml."""
    filled = dict(data)
    for (section, key), variable in PER_INSTANCE.items():
        entry = filled.get(section, {})
        if variable in environment and isinstance(entry, dict) and key not in entry:
            filled[section] = {**entry, key: environment[variable]}
    return filled
