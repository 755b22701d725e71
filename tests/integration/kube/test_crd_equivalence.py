"""The models accept exactly what a real API server accepts under the CRD, and fill in the same defaults.

The server is asked by a dry run with fieldValidation=Strict, kubectl's default: the models never drop an unknown field in silence.
metadata beyond the name is Kubernetes's own business and left out.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cases import CHANGES, INVALID, VALID, Change, Invalid, Manifest
from crd_server import Server
from generated import clusters, damaged, successors
from shardoperator.models.manifest import validation_lines
from shardoperator.models.spec import ShardedCluster
from shardoperator.models.transitions import forbidden_changes

EXAMPLES = int(os.environ.get("PGSHEPHERD_EXAMPLES", "400"))
"""Generated manifests of one run; the same ones each time."""

_SETTINGS = settings(
    max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


def _modelled(given: Manifest) -> tuple[ShardedCluster | None, str]:
    try:
        return ShardedCluster.model_validate(given), ""
    except ValidationError as error:
        return None, "\n".join(validation_lines(error))


@pytest.mark.parametrize("given", VALID.values(), ids=VALID.keys())
async def test_accepted(server: Server, given: Manifest) -> None:
    assert await server.refusal(given) is None


@pytest.mark.parametrize("case", INVALID.values(), ids=INVALID.keys())
async def test_refused_with_its_place(server: Server, case: Invalid) -> None:
    said = await server.refusal(case.manifest)
    assert said is not None
    assert case.where in said
    assert case.says in said


@pytest.mark.parametrize("case", CHANGES.values(), ids=CHANGES.keys())
async def test_changes(server: Server, case: Change) -> None:
    said = await server.refusal_of_change(case.old, case.new)
    assert bool(said) == bool(case.says), said
    assert case.says in (said or "")


@pytest.mark.timeout(600)  # a failure is made small before it is shown
@_SETTINGS
@given(st.one_of(clusters(), damaged()))
async def test_the_same_objects(server: Server, given: Manifest) -> None:
    cluster, complaint = _modelled(given)
    said = await server.refusal(given)
    assert (said is None) == (cluster is not None), f"models: {complaint or 'accepted'}\nserver: {said or 'accepted'}"
    if cluster is not None:
        assert await server.filled(given) == cluster.spec.model_dump(by_alias=True, exclude_none=True)


@pytest.mark.timeout(600)
@settings(_SETTINGS, max_examples=EXAMPLES // 2)
@given(successors())
async def test_the_same_changes(server: Server, pair: tuple[Manifest, Manifest]) -> None:
    (old, _), (new, complaint) = (_modelled(one) for one in pair)
    if old is None:
        assert await server.refusal(pair[0]) is not None
        return
    complaints = [complaint] if new is None else forbidden_changes(old.spec, new.spec)
    said = await server.refusal_of_change(*pair)
    assert bool(said) == bool(complaints), f"models: {complaints or 'allowed'}\nserver: {said or 'allowed'}"
