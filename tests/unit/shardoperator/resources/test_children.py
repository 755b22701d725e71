"""The children of a ShardedCluster: what they must have, whatever else changes."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from observed import cluster
from shardoperator.names import CONFIG_HASH, ROUTING_HASH
from shardoperator.resources.children import child_names, children
from shardoperator.resources.config import RenderedConfig
from shardproxy.config.environment import ROUTING_VARIABLE

CONFIG = RenderedConfig({"pgdog.toml": "a = 1\n", "users.toml": "ö"}, "config", "routing")


def made(alive_routing: str | None = None, **spec: Any) -> dict[str, dict[str, Any]]:
    return {body["kind"]: body for _, body in children(cluster(**spec), CONFIG, "proxy:1", alive_routing=alive_routing)}


def test_every_child_belongs_to_the_cluster_and_is_removed_with_it() -> None:
    bodies = children(cluster(), CONFIG, "proxy:1", alive_routing=None)
    for _, body in bodies:
        (owner,) = body["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("ShardedCluster", "shop", True)
        assert body["metadata"]["labels"]["pgshepherd.io/cluster"] == "shop"
    assert {(kind, body["metadata"]["name"]) for kind, body in bodies} == set(child_names("shop"))


def test_the_secret_holds_all_files() -> None:
    data = made()["Secret"]["data"]
    assert {name: base64.b64decode(text).decode() for name, text in data.items()} == dict(CONFIG.files)


def test_the_pod_is_restricted() -> None:
    pod = made()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["volumeMounts"][0]["readOnly"] is True


def test_a_new_configuration_rolls_and_a_pod_serves_only_its_own_routing() -> None:
    template = made()["Deployment"]["spec"]["template"]
    assert template["metadata"]["annotations"] == {CONFIG_HASH: "config", ROUTING_HASH: "routing"}
    assert {"name": ROUTING_VARIABLE, "value": "routing"} in template["spec"]["containers"][0]["env"]


@pytest.mark.parametrize(("alive", "strategy"), [(None, "RollingUpdate"), ("routing", "RollingUpdate"), ("other", "Recreate")])
def test_two_routing_maps_are_never_alive_together(alive: str | None, strategy: str) -> None:
    assert made(alive)["Deployment"]["spec"]["strategy"]["type"] == strategy


def test_selectors_agree() -> None:
    bodies = made()
    labels = bodies["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for chosen in (
        bodies["Deployment"]["spec"]["selector"]["matchLabels"],
        bodies["Service"]["spec"]["selector"],
        bodies["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert chosen.items() <= labels.items()


def test_the_service_has_the_port_of_the_spec() -> None:
    (port,) = made(proxy={"replicas": 1, "port": 5432})["Service"]["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (5432, 6432)
