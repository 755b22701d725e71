"""Walking libpg_query's parse tree, which is a protobuf message.

Invariant: `check_nodes` visits every node; what is not on the list of known node types is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shardproxy.errors import Refused

KNOWN_NODES = frozenset(
    """A_ArrayExpr A_Const A_Expr A_Indices A_Indirection A_Star Alias BitString BoolExpr Boolean BooleanTest CaseExpr CaseWhen
    CoalesceExpr CollateClause ColumnRef CommonTableExpr DeleteStmt Float FuncCall GroupingFunc GroupingSet InferClause InsertStmt
    Integer JoinExpr List LockingClause MinMaxExpr MultiAssignRef NamedArgExpr NullTest OnConflictClause ParamRef RangeFunction
    RangeSubselect RangeVar ResTarget RowExpr SQLValueFunction SelectStmt SetToDefault SortBy String SubLink TypeCast TypeName
    UpdateStmt WindowDef WithClause IndexElem ReturningClause""".split()
)
"""Nodes that the analyzer understands, or that can't change where a statement belongs."""

Message = Any
"""A protobuf message of postgast's pg_query_pb2."""


def name_of(message: Message) -> str:
    """The node type, as Postgres's sources call it."""
    name: str = message.DESCRIPTOR.name
    return name


def unwrap(node: Message) -> Message:
    """The message inside a Node; the message itself if it is none."""
    if name_of(node) != "Node":
        return node
    kind = node.WhichOneof("node")
    return getattr(node, kind) if kind else node


def children(message: Message) -> Iterator[Message]:
    """The messages directly inside, unwrapped."""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        if hasattr(value, "DESCRIPTOR"):
            yield unwrap(value)
        else:
            yield from (unwrap(item) for item in value)


def walk(message: Message) -> Iterator[Message]:
    """The message and everything below it, parents first."""
    stack = [message]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(reversed(list(children(current))))


def check_nodes(message: Message) -> None:
    """Raises Refused for a node that is not known."""
    for node in walk(message):
        name = name_of(node)
        if name not in KNOWN_NODES and name != "Node":
            raise Refused(f"{name} in a statement", "write it without this construct")


def strings(nodes: Any) -> list[str]:
    """The texts of a list of String nodes; a star is '*'."""
    texts = []
    for node in nodes:
        inner = unwrap(node)
        texts.append(inner.sval if name_of(inner) == "String" else "*")
    return texts
