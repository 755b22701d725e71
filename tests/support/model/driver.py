"""The pieces of the shipped drivers that judge a server's answer, as far as they are functions of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from shardproxy.backend.connection import QueryResult
from shardproxy.errors import SqlError
from shardproxy.query.commit import Commit
from shardproxy.twophase import messages as m

_TAGS = ["SAVEPOINT", "RELEASE", "SET", "SET CONSTRAINTS", "SET", "INSERT 0 1"]


def _ours(sqlstate: str) -> SqlError:
    return SqlError(sqlstate, "", schema="pgshepherd", table="commit_record")


_ANSWERS = {
    "prepared": lambda: QueryResult(tags=[*_TAGS, "PREPARE TRANSACTION"], status="I"),
    "not replicated": lambda: QueryResult(tags=[*_TAGS, "PREPARE TRANSACTION"], status="I", warnings=[("01000", len(_TAGS))]),
    "rolled back": lambda: QueryResult(tags=["ROLLBACK"], status="I"),
    "committed": lambda: QueryResult(tags=[*_TAGS, "COMMIT"], status="I"),
    "failed": lambda: QueryResult(error=SqlError("25P02", ""), status="E"),
    "no transaction": lambda: QueryResult(error=SqlError("25P01", ""), status="I"),
    "tombstone": lambda: QueryResult(error=_ours("23505"), status="E"),
    "superseded": lambda: QueryResult(error=_ours("23502"), status="E"),
}
"""What a server says to the message of step 1, or of step 3 with last agent."""


class _Silent:
    """Stands for a Commit where only its judgement is wanted; as its cluster, it forgets nothing."""

    def __init__(self) -> None:
        self.cluster = self

    def _blame(self, error: SqlError) -> None:
        """Nobody is told."""

    def forget_epoch(self, number: int) -> None:
        """None is kept."""


def judge_prepare(shard: int, answer: str) -> m.Reply:
    """As `Commit` judges it."""
    judge = cast("Callable[[object, int, QueryResult], m.Reply]", Commit._judge_prepare)
    return judge(_Silent(), shard, _ANSWERS[answer]())


def judge_last(shard: int, answer: str) -> m.Reply:
    """As `Commit` judges last agent's step 3."""
    judge = cast("Callable[[object, int, QueryResult], m.Reply]", Commit._judge_last)
    return judge(_Silent(), shard, _ANSWERS[answer]())
