"""Durations as users write them."""

from __future__ import annotations

import pytest

from shardoperator.models.values import seconds


@pytest.mark.parametrize(
    ("text", "expected"), [("5s", 5), ("10m", 600), ("1h30m", 5400), ("2.5s", 2.5), ("1h2m3s", 3723), ("0s", 0), ("90m", 5400)]
)
def test_seconds(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "5", "s", "1.5m", "5 s", "-5s", "3s2m", "1d", "5S", "1h30", "5s\n", ".5s", "1e3s"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a duration is written like 5s"):
        seconds(text)
