"""What a server's answer to PREPARE, COMMIT PREPARED and ROLLBACK PREPARED means."""

from __future__ import annotations

from typing import Any, cast

import pytest

from shardproxy.backend.connection import QueryResult
from shardproxy.errors import SqlError
from shardproxy.query.commit import Commit, _finished
from shardproxy.twophase import messages as m

PLAIN = ["SAVEPOINT", "RELEASE", "SET", "SET CONSTRAINTS", "SET", "INSERT 0 1", "PREPARE TRANSACTION"]
RAISED = ["SAVEPOINT", "RELEASE", "SET", "SELECT 1", "SET CONSTRAINTS", "SET", "INSERT 0 1", "PREPARE TRANSACTION"]


class Blamed:
    """Stands for a Commit: remembers what its client would be told."""

    error: SqlError | None = None

    def __init__(self) -> None:
        self.cluster = self
        self.forgotten: list[int] = []

    def forget_epoch(self, number: int) -> None:
        self.forgotten.append(number)

    def _blame(self, error: SqlError) -> None:
        self.error = self.error or error


def judged(result: QueryResult) -> tuple[m.Reply, str]:
    blamed = Blamed()
    reply = Commit._judge_prepare(cast("Any", blamed), 1, result)
    return reply, blamed.error.sqlstate if blamed.error is not None else ""


def warned(tags: list[str], code: str, after: int) -> QueryResult:
    return QueryResult(tags=tags, warnings=[(code, after)])


@pytest.mark.parametrize("tags", [PLAIN, RAISED])
def test_prepared(tags: list[str]) -> None:
    assert judged(QueryResult(tags=tags)) == (m.Prepared(1), "")


@pytest.mark.parametrize("tags", [PLAIN, RAISED])
@pytest.mark.parametrize("code", ["01000", "57P01"])
def test_a_warning_after_the_record_means_not_replicated(tags: list[str], code: str) -> None:
    assert judged(warned(tags, code, len(tags) - 1)) == (m.Refused(1, prepared=True), "40000")


@pytest.mark.parametrize("tags", [PLAIN, RAISED])
def test_a_warning_of_a_deferred_trigger_is_honest(tags: list[str]) -> None:
    before = tags.index("SET CONSTRAINTS")
    assert judged(warned(tags, "01000", before)) == (m.Prepared(1), "")


def test_prepared_outside_a_transaction_is_rolled_back() -> None:
    """Whatever says 25P01: it is prepared now, so it must be rolled back, not forgotten."""
    assert judged(warned(PLAIN, "25P01", 2)) == (m.Refused(1, prepared=True), "40000")


@pytest.mark.parametrize("tag", ["ROLLBACK", "COMMIT", "INSERT 0 1", ""])
def test_any_other_tag_is_a_refusal(tag: str) -> None:
    tags = [*PLAIN[:-1], tag] if tag else []
    assert judged(QueryResult(tags=tags, status="I")) == (m.Refused(1), "40000")


@pytest.mark.parametrize(
    ("error", "status", "reply", "told"),
    [
        (SqlError("23505", "", schema="pgshepherd", table="commit_record"), "E", m.Refused(1, open=True), "40001"),
        (SqlError("23502", "", schema="pgshepherd", table="commit_record"), "E", m.Refused(1, open=True), "40001"),
        (SqlError("23505", "", schema="public", table="commit_record"), "E", m.Refused(1, open=True), "23505"),
        (SqlError("23503", ""), "I", m.Refused(1), "23503"),
        (SqlError("53200", ""), "I", m.Refused(1), "53200"),
    ],
)
def test_errors(error: SqlError, status: str, reply: m.Reply, told: str) -> None:
    assert judged(QueryResult(error=error, status=status)) == (reply, told)


COMMITTED = [*PLAIN[:-1], "COMMIT"]


@pytest.mark.parametrize(
    ("result", "reply", "told"),
    [
        (QueryResult(tags=COMMITTED), m.Done(1), ""),
        (warned(COMMITTED, "01000", len(COMMITTED) - 1), m.Done(1, durable=False), ""),
        (warned(COMMITTED, "57P01", len(COMMITTED) - 1), m.Done(1, durable=False), ""),
        (warned(COMMITTED, "01000", 3), m.Done(1), ""),
        (QueryResult(tags=[*PLAIN[:-1], "ROLLBACK"]), m.Refused(1), "40000"),
        (QueryResult(tags=PLAIN[:3], error=SqlError("23505", ""), status="E"), m.Refused(1, open=True), "23505"),
        (QueryResult(tags=PLAIN[:-1], error=SqlError("40001", ""), status="I"), m.Refused(1), "40001"),
        (
            QueryResult(error=SqlError("23505", "", schema="pgshepherd", table="commit_record"), status="E"),
            m.Refused(1, open=True),
            "40001",
        ),
    ],
)
def test_last_agent(result: QueryResult, reply: m.Reply, told: str) -> None:
    """Only a block that is still open proves that COMMIT never ran."""
    blamed = Blamed()
    assert Commit._judge_last(cast("Any", blamed), 1, result) == reply
    assert (blamed.error.sqlstate if blamed.error is not None else "") == told


def test_only_its_own_tag_is_success() -> None:
    commit, rollback = "COMMIT PREPARED 'x'", "ROLLBACK PREPARED 'x'"
    assert _finished(1, commit, QueryResult(tags=["COMMIT PREPARED"])) == m.Done(1)
    assert _finished(1, rollback, QueryResult(tags=["ROLLBACK PREPARED"])) == m.Done(1)
    for tags in ([], ["COMMIT"], ["ROLLBACK PREPARED"], ["UPDATE 1"]):
        assert isinstance(_finished(1, commit, QueryResult(tags=tags)), m.Lost)
    late = QueryResult(tags=["COMMIT PREPARED"], warnings=[("01000", 0)])
    assert _finished(1, commit, late) == m.Done(1, durable=False)
    assert _finished(1, commit, QueryResult(error=SqlError("42704", ""))) == m.Gone(1)
    assert _finished(1, commit, QueryResult(error=SqlError("55000", "busy"))) == m.Failed(1, "55000", "busy")
