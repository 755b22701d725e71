"""The CRD as a file, and what of its schema a pydantic model can say as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CRD_FILE = Path(__file__).parents[2] / "crds" / "shardedclusters.yaml"

Schema = dict[str, Any]

_COMPARED = ("type", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems")


def load_crd() -> dict[str, Any]:
    """The whole file."""
    loaded: dict[str, Any] = yaml.safe_load(CRD_FILE.read_text())
    return loaded


def root_schema() -> Schema:
    """openAPIV3Schema of the one version."""
    (version,) = load_crd()["spec"]["versions"]
    schema: Schema = version["schema"]["openAPIV3Schema"]
    return schema


def walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema, with its place."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from walk(inner, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")


def comparable(schema: Schema, definitions: Schema) -> Schema:
    """Without words, references and `or null`, and with each default written out."""
    if "$ref" in schema:
        return comparable(definitions[schema["$ref"].rpartition("/")[2]] | _without(schema, "$ref"), definitions)
    if "anyOf" in schema:
        (inner,) = (one for one in schema["anyOf"] if one.get("type") != "null")
        return comparable(inner, definitions)
    schema = _without(schema, "const") | {"enum": [schema["const"]]} if "const" in schema else schema
    made = {key: schema[key] for key in _COMPARED if key in schema}
    if "properties" in schema:
        made["required"] = sorted(schema.get("required", []))
        made["properties"] = {name: comparable(inner, definitions) for name, inner in schema["properties"].items()}
    if "items" in schema:
        made["items"] = comparable(schema["items"], definitions)
    if schema.get("default") is not None:
        made["default"] = _filled(schema["default"], made)
    return made


def _without(schema: Schema, key: str) -> Schema:
    return {name: value for name, value in schema.items() if name != key}


def _filled(value: Any, schema: Schema) -> Any:
    """As the API server fills a default in turn."""
    if not isinstance(value, dict):
        return value
    defaults = {name: inner["default"] for name, inner in schema["properties"].items() if "default" in inner}
    return defaults | value
