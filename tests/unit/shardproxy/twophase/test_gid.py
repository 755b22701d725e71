"""GIDs: the golden name, round trips, and everything foreign."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.twophase.gid import MAX_BYTES, Gid, parse

GOLDEN = "__pgdog_2pc_s1_00c0ffee00c0ffee_0123456789abcdef0123456789abcdef_2a_1_4_3_0_7044383c"

hexes = st.text("0123456789abcdef", min_size=16, max_size=16)
numbers = st.integers(0, 2**31 - 1)
gids = st.builds(
    Gid, cluster=hexes, txn=st.text("0123456789abcdef", min_size=32, max_size=32), epoch=st.integers(0, 2**63 - 1),
    decision_timeline=numbers, timeline=numbers, decision_shard=numbers, shard=numbers,
)  # fmt: skip


def test_golden() -> None:
    gid = Gid("00c0ffee00c0ffee", "0123456789abcdef0123456789abcdef", 0x2A, 1, 4, 3, 0)
    assert gid.text == GOLDEN
    assert parse(GOLDEN) == gid
    assert not gid.is_decision


@given(gids)
def test_round_trip(gid: Gid) -> None:
    assert parse(gid.text) == gid
    assert len(gid.text.encode()) <= MAX_BYTES
    assert "'" not in gid.text


@given(gids, st.integers(0, 200), st.text(min_size=1, max_size=1))
def test_any_other_character_is_foreign(gid: Gid, at: int, character: str) -> None:
    at %= len(gid.text)
    changed = gid.text[:at] + character + gid.text[at + 1 :]
    assert parse(changed) is None or changed == gid.text


@given(st.text(max_size=250))
def test_anything_else_is_foreign(name: str) -> None:
    assert parse(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "4660_Z3RyaWQ=_YnF1YWw=",
        "citus_0_1234_5_6",
        "__pgdog_2pc_1_42_0",
        "pg_gid_16394_745",
        "__pgdog_2pc_s1_%_%",
        "o'hara",
        GOLDEN.upper(),
        GOLDEN + "\n",
        " " + GOLDEN,
        GOLDEN.replace("_2a_", "_02a_"),
        GOLDEN.replace("7044383c", "7044383d"),
        GOLDEN.replace("0123456789abcdef0", "\u0660123456789abcdef0"),
    ],
)
def test_foreign(name: str) -> None:
    assert parse(name) is None
