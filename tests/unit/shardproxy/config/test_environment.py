"""Defaults from the environment: what a file says wins; an instance serves only the routing map that it was started for."""

from __future__ import annotations

from typing import Any

import pytest

from shardproxy.config.environment import pgdog_defaults, pgshepherd_defaults
from shardproxy.config.load import _check_routing
from shardproxy.config.models import ProxyConfig
from shardproxy.errors import ConfigError

PGDOG: list[tuple[dict[str, Any], dict[str, str], dict[str, Any]]] = [
    ({}, {"PGDOG_HOST": "127.0.0.2"}, {"host": "127.0.0.2"}),
    ({"general": {"host": "::"}}, {"PGDOG_HOST": "127.0.0.2"}, {"host": "::"}),
    ({"general": {"port": 1}}, {"PGDOG_OPENMETRICS_PORT": "9"}, {"port": 1, "openmetrics_port": "9"}),
    ({}, {"PGDOG_NOT_A_KEY": "x", "HOST": "y"}, {}),
]


@pytest.mark.parametrize(("data", "environment", "general"), PGDOG)
def test_pgdog(data: dict[str, Any], environment: dict[str, str], general: dict[str, Any]) -> None:
    assert pgdog_defaults(data, environment)["general"] == general


def test_ours() -> None:
    environment = {"PGSHEPHERD_INSTANCE_NAME": "pod-1", "PGSHEPHERD_HEALTH_PORT": "81"}
    found = pgshepherd_defaults({"health": {"port": 80}, "cluster": {}}, environment)
    assert found == {"health": {"port": 80}, "cluster": {}, "instance": {"name": "pod-1"}}


def config(routing: str) -> ProxyConfig:
    ours = {
        "cluster": {"id": "0123456789abcdef", "routing_hash": routing},
        "shards": [{"number": 0, "name": "a", "system_identifier": 1, "coordinator_user": "r", "coordinator_password": "p"}],
    }
    pgdog = {"databases": [{"name": "shop", "host": "a"}]}
    return ProxyConfig.model_validate({"pgdog": pgdog, "users": {"users": []}, "pgshepherd": ours})


def test_another_routing_map_is_refused() -> None:
    _check_routing(config("new"), "new")
    _check_routing(config("new"), None)
    with pytest.raises(ConfigError, match="this instance was started for 'old'"):
        _check_routing(config("new"), "old")
