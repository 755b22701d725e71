"""The exact texts of the protocol: what each must and must not hold."""

from __future__ import annotations

import re

import pytest

from shardproxy.twophase import records
from shardproxy.twophase.gid import Gid

DECISION = Gid("00c0ffee00c0ffee", "0123456789abcdef0123456789abcdef", 0x2A, 1, 1, 3, 3)
OTHER = Gid("00c0ffee00c0ffee", "0123456789abcdef0123456789abcdef", 0x2A, 1, 4, 3, 0)


def test_step_one_on_a_participant() -> None:
    assert records.prepare_message(OTHER, [3, 0], raise_synchronous_commit=False) == (
        "SAVEPOINT pgs; RELEASE pgs; SET LOCAL client_min_messages = warning; SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL ROLE NONE; "
        "INSERT INTO pgshepherd.commit_record (txn, shard, decision_shard, epoch, participants) "
        "VALUES ('0123456789abcdef0123456789abcdef', 0, 3, 42, '{0,3}'); "
        f"PREPARE TRANSACTION '{OTHER.text}'"
    )


def test_the_decision_shards_epoch_is_checked_by_the_insert_itself() -> None:
    text = records.prepare_message(DECISION, [0, 3])
    assert "(SELECT 42 FROM pgshepherd.shard WHERE epoch <= 42 + 1)" in text
    assert "SELECT 42" not in records.prepare_message(OTHER, [0, 3])


@pytest.mark.parametrize("gid", [DECISION, OTHER])
def test_the_order_within_the_message(gid: Gid) -> None:
    """The guard against an empty transaction first, the record as the login role, PREPARE last."""
    text = records.prepare_message(gid, [0, 3])
    words = ["SAVEPOINT", "client_min_messages", "synchronous_commit", "SET CONSTRAINTS", "ROLE NONE", "INSERT INTO", "PREPARE "]
    places = [text.index(word) for word in words]
    assert places == sorted(places)
    assert text.endswith(f"PREPARE TRANSACTION '{gid.text}'")


def test_durability_is_never_lowered() -> None:
    text = records.prepare_message(OTHER, [0, 3])
    assert "IN ('off', 'local', 'remote_write') THEN 'on' ELSE pg_catalog.current_setting('synchronous_commit')" in text


@pytest.mark.parametrize("text", [records.commit_prepared(OTHER.text), records.rollback_prepared(OTHER.text)])
def test_the_second_phase_is_alone_in_its_message(text: str) -> None:
    assert ";" not in text


def test_every_name_is_qualified() -> None:
    """So that no search_path of anybody can redirect it."""
    texts = [
        records.prepare_message(DECISION, [0, 3]),
        records.read_gid(OTHER.text),
        records.read_record(OTHER.txn, 0),
        records.tombstone(OTHER.txn, 3, 42),
        records.CONFIRM_DURABLE,
        records.CLOSE_READER,
        f"SELECT {records.TIMELINE}",
    ]
    for text in texts:
        for relation in re.findall(r"(?:FROM|INTO|JOIN) (\S+)", text):
            assert relation.startswith(("pgshepherd.", "pg_catalog.")), text
        for function in re.findall(r"([\w.]+)\((?!SELECT|txn)", text):
            assert function.startswith("pg_catalog.") or function in {"VALUES", "IN"}, (function, text)


def test_the_tombstone_is_write_once_and_checks_the_retirement() -> None:
    text = records.tombstone(OTHER.txn, 3, 42)
    assert "'abort' FROM pgshepherd.shard WHERE retired < 42 ON CONFLICT DO NOTHING" in text


def test_a_record_counts_only_on_the_shard_that_it_names() -> None:
    assert f"r.txn = '{OTHER.txn}' AND r.shard = 0" in records.read_record(OTHER.txn, 0)
