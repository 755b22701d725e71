"""From a text to its statements: by allow-list, each statement either known to be answered right, or refused.

What is pure and depends on nothing but text and context, so sessions may keep the result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import postgast
from google.protobuf.message import DecodeError

from shardproxy.errors import Refused, SqlError
from shardproxy.routing import commands, reads, writes
from shardproxy.routing.functions import session_flags
from shardproxy.routing.keys import Keyed
from shardproxy.routing.plan import All, Assembly, Kind, Statement
from shardproxy.routing.schema import RoutingContext
from shardproxy.routing.tree import Message, name_of, unwrap

_WITH_CONTEXT: Mapping[str, Callable[[Message, str, RoutingContext], Statement]] = {
    "SelectStmt": reads.select,
    "InsertStmt": writes.insert,
    "UpdateStmt": writes.update,
    "DeleteStmt": writes.delete,
} | dict.fromkeys(commands.DDL_NODES, commands.ddl)

_PLAIN: Mapping[str, Callable[[Message, str], Statement]] = {
    "TransactionStmt": commands.transaction,
    "VariableSetStmt": commands.variable_set,
    "VariableShowStmt": commands.variable_show,
    "DiscardStmt": commands.discard,
    "DeallocateStmt": commands.deallocate,
    "ClosePortalStmt": commands.close_all,
    "UnlistenStmt": commands.unlisten,
}

_WAYS_ROUND: Mapping[str, str] = {
    "CopyStmt": "load and unload each shard by itself, or use INSERT",
    "VacuumStmt": "run it on each shard by itself",
    "DoStmt": "run it on each shard by itself",
    "CallStmt": "call it on the shard itself",
    "DeclareCursorStmt": "read the whole result",
    "FetchStmt": "read the whole result",
    "ListenStmt": "listen on one Postgres by itself",
    "NotifyStmt": "notify on one Postgres by itself",
    "LockStmt": "use SELECT ... FOR UPDATE",
    "PrepareStmt": "let the driver prepare statements by the protocol",
    "ExecuteStmt": "let the driver prepare statements by the protocol",
    "MergeStmt": "use INSERT ... ON CONFLICT",
}


def analyze(sql: str, context: RoutingContext) -> tuple[Statement, ...]:
    """One `Statement` for each in the text; raises SqlError 42601 with a position, or Refused."""
    try:
        tree = postgast.parse(sql)
    except postgast.PgQueryError as error:
        raise SqlError("42601", error.message, position=error.cursorpos or 0) from None
    except DecodeError:
        raise SqlError(
            "54001",
            "the statement is nested too deeply for pgshepherd",
            hint="break it up: the parser takes a hundred levels, and each operator of a chain is one",
        ) from None
    data = sql.encode()
    statements = []
    for raw in tree.stmts:
        end = raw.stmt_location + raw.stmt_len if raw.stmt_len else len(data)
        flags = [at for at in session_flags(unwrap(raw.stmt)) if data[at : at + 5].lower() == b"false"]
        for at in flags:
            data = data[:at] + b"true " + data[at + 5 :]
        text = data[raw.stmt_location : end].decode().strip()
        statement = _statement(unwrap(raw.stmt), text, context)
        statements.append(replace(statement, rewritten=True) if flags else statement)
    return tuple(statements)


def _statement(node: Message, text: str, context: RoutingContext) -> Statement:
    kind = name_of(node)
    if kind in _WITH_CONTEXT:
        return _WITH_CONTEXT[kind](node, text, context)
    if kind in _PLAIN:
        return _PLAIN[kind](node, text)
    if kind == "ExplainStmt":
        return _explain(node, text, context)
    raise Refused(f"the statement {_words(kind)}", _WAYS_ROUND.get(kind, "run it on the shards themselves"))


def _words(kind: str) -> str:
    """FetchStmt is FETCH, DeclareCursorStmt is DECLARE CURSOR: what a user wrote, or nearly."""
    return "FETCH and MOVE" if kind == "FetchStmt" else re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.removesuffix("Stmt")).upper()


def _explain(node: Message, text: str, context: RoutingContext) -> Statement:
    """EXPLAIN of a statement on one shard is that shard's answer."""
    inner = _statement(unwrap(node.query), text, context)
    if inner.kind not in (Kind.QUERY, Kind.DML) or isinstance(inner.route, All):
        raise Refused("EXPLAIN of a statement over several shards", "name the sharding key, or ask each shard by itself")
    route = replace(inner.route, may_fan_out=False) if isinstance(inner.route, Keyed) else inner.route
    return replace(inner, kind=Kind.QUERY, route=route, assembly=Assembly.SINGLE, returns_rows=True)
