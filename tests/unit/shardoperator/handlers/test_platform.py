"""What the Kubernetes platform believes, and when a status says something new."""

from __future__ import annotations

from typing import Any

import pytest

from shardoperator.handlers.clusters import _named_secrets
from shardoperator.handlers.platform import Fresh, _differs


def test_a_value_is_believed_until_it_is_forgotten() -> None:
    fresh = Fresh[int]()
    assert fresh.value is None
    assert fresh.keep(1, changes=fresh.changes) == 1
    assert fresh.value == 1
    fresh.forget()
    assert fresh.value is None


def test_what_changed_while_it_was_read_is_not_believed() -> None:
    fresh = Fresh[int]()
    before = fresh.changes
    fresh.forget()  # an event, between the request and its answer
    assert fresh.keep(1, changes=before) == 1
    assert fresh.value is None


STORED = {"a": 1, "list": [{"x": 1}], "more": "of another"}


@pytest.mark.parametrize(
    ("desired", "differs"),
    [
        ({"a": 1}, False),
        ({"a": 1, "list": [{"x": 1}]}, False),
        ({"a": 1, "none": None}, False),
        ({"a": 2}, True),
        ({"list": []}, True),
        ({"list": [{"x": 1}, {"x": 2}]}, True),
        ({"list": [{"x": 1, "y": None}]}, False),
        ({"new": 1}, True),
    ],
)
def test_a_status_is_written_only_if_it_says_something_new(desired: dict[str, Any], differs: bool) -> None:
    assert _differs(desired, STORED) is differs


def test_the_secrets_of_any_spec_are_known() -> None:
    spec = {
        "shards": [{"credentialsSecretRef": {"name": "a"}, "installerSecretRef": {"name": "b"}}, "nonsense"],
        "users": [{"passwordSecretRef": {"name": "c", "key": "k"}}, {"passwordSecretRef": 7}],
    }
    assert _named_secrets(spec) == {"a", "b", "c"}
    assert _named_secrets(None) == set()
