"""The named cases on the models; tests/integration/kube/test_crd_equivalence.py runs them on a real API server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from cases import INVALID, VALID, Invalid, manifest
from shardoperator.models.manifest import validation_lines
from shardoperator.models.spec import ShardedCluster

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize("given", VALID.values(), ids=VALID.keys())
def test_accepted(given: dict[str, Any]) -> None:
    ShardedCluster.model_validate(given)


@pytest.mark.parametrize("case", INVALID.values(), ids=INVALID.keys())
def test_refused_with_its_place(case: Invalid) -> None:
    with pytest.raises(ValidationError) as refused:
        ShardedCluster.model_validate(case.manifest)
    said = "\n".join(validation_lines(refused.value))
    assert case.where in said
    assert case.says in said


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_examples(path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text()))
    assert [ShardedCluster.model_validate(one) for one in documents if one["kind"] == "ShardedCluster"]


def test_a_number_defaults_to_the_position() -> None:
    spec = ShardedCluster.model_validate(manifest(("spec.shards.1.number", 5))).spec
    assert spec.numbers == {"a": 0, "b": 5}
    assert [spec.number(position) for position in (0, 1)] == [0, 5]
