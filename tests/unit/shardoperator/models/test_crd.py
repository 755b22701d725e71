"""The CRD without a server: structural, bounded everywhere, and of the same schema as the models."""

from __future__ import annotations

import pytest

from cases import CHANGES, INVALID
from crd import Schema, comparable, load_crd, root_schema, walk
from shardoperator import names
from shardoperator.models.spec import ShardedCluster

_SCHEMAS = dict(walk(root_schema()))
_SCHEMA_WORDS = frozenset(
    "type description properties items required enum default nullable format pattern minLength maxLength minimum maximum "
    "minItems maxItems x-kubernetes-list-type x-kubernetes-list-map-keys x-kubernetes-validations".split()
)
"""None of them makes a schema non-structural."""

_BOUNDS: dict[str, list[set[str]]] = {
    "string": [{"maxLength"}, {"enum"}],
    "integer": [{"minimum", "maximum"}],
    "array": [{"maxItems", "items"}],
    "object": [{"properties"}],
    "boolean": [set()],
}


def test_the_names_are_those_that_the_operator_uses() -> None:
    spec = load_crd()["spec"]
    assert (spec["group"], spec["names"]["kind"]) == (names.GROUP, names.KIND)
    assert f"{spec['group']}/{spec['versions'][0]['name']}" == names.API_VERSION


@pytest.mark.parametrize("path", _SCHEMAS)
def test_structural_and_bounded(path: str) -> None:
    schema = _SCHEMAS[path]
    assert schema.keys() <= _SCHEMA_WORDS
    assert abs(schema.get("maximum", 0)) < 2**53  # beyond, the API server's comparison of floats overflows
    assert any(bounds <= schema.keys() for bounds in _BOUNDS[schema["type"]]) or path == "metadata"


@pytest.mark.parametrize("path", [path for path, schema in _SCHEMAS.items() if schema["type"] == "array"])
def test_every_list_says_how_it_is_merged(path: str) -> None:
    schema = _SCHEMAS[path]
    kind, keys = schema["x-kubernetes-list-type"], schema.get("x-kubernetes-list-map-keys", [])
    assert (kind == "map") == bool(keys)
    assert set(keys) <= set(schema["items"].get("required", []))


def test_the_spec_is_the_models() -> None:
    models = ShardedCluster.model_json_schema()
    assert comparable(root_schema()["properties"]["spec"], {}) == comparable(models["$defs"]["Spec"], models["$defs"])


def test_the_name_is_the_models() -> None:
    name = ShardedCluster.model_json_schema()["$defs"]["Metadata"]["properties"]["name"]
    assert comparable(root_schema()["properties"]["metadata"]["properties"]["name"], {}) == comparable(name, {})


def _messages(schema: Schema) -> list[str]:
    return [rule["message"] for rule in schema.get("x-kubernetes-validations", [])]


_READ = {"must be above 0", "must be 0 or above"}
"""They only make the API server read an integer strictly."""


def test_every_integer_is_read_by_a_rule() -> None:
    integers = [path for path, schema in _SCHEMAS.items() if schema["type"] == "integer" and path.startswith("spec")]
    unread = [path for path in integers if not _READ & set(_messages(_SCHEMAS[path]))]
    assert unread == ["spec.proxy.replicas"]  # by the scale subresource


def test_every_rule_has_a_case_that_breaks_it() -> None:
    rules = {message for schema in _SCHEMAS.values() for message in _messages(schema)} - _READ
    cases = [case.says for case in INVALID.values() if case.says] + [case.says for case in CHANGES.values() if case.says]
    assert rules
    assert [rule for rule in rules if not any(says in rule for says in cases)] == []
    assert [says for says in cases if not any(says in rule for rule in rules)] == []


def test_only_what_the_status_may_leave_open_is_nullable() -> None:
    assert [path for path, schema in _SCHEMAS.items() if schema.get("nullable") and not path.startswith("status")] == []
