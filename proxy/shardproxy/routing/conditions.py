"""Conditions on keys: `column = value`, `column IN (values)`, `column = column`, taken out of an AND-connected expression."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from shardproxy.routing.keys import KeyValue, from_text
from shardproxy.routing.tree import Message, name_of, strings, unwrap

_TYPES: Mapping[str, frozenset[str]] = {
    "bigint": frozenset({"int2", "int4", "int8"}),
    "varchar": frozenset({"text", "varchar"}),
    "uuid": frozenset({"uuid"}),
}
"""Casts that leave a key of each data type as it is."""

_OPERATOR, _IN = 1, 7
"""A_Expr_Kind of libpg_query: AEXPR_OP and AEXPR_IN."""
_AND = 1


@dataclass(frozen=True)
class Operand:
    """A column reference."""

    qualifier: str
    column: str


@dataclass(frozen=True)
class Equality:
    """The column equals one of the values, or another column."""

    column: Operand
    values: tuple[Message, ...] = ()
    other: Operand | None = None


def operands(expression: Message) -> Iterator[Equality]:
    """Every equality that the whole expression implies."""
    node = unwrap(expression)
    kind = name_of(node)
    if kind == "BoolExpr" and node.boolop == _AND:
        for argument in node.args:
            yield from operands(argument)
    elif kind == "A_Expr" and strings(node.name)[-1:] == ["="] and len(node.name) == 1:
        yield from _equality(node)


def _equality(node: Message) -> Iterator[Equality]:
    left, right = unwrap(node.lexpr), unwrap(node.rexpr)
    column, other = _column(left), _column(right)
    if node.kind == _IN and column is not None and name_of(right) == "List":
        yield Equality(column, tuple(unwrap(item) for item in right.items))
    elif node.kind == _OPERATOR:
        if column is not None and other is not None:
            yield Equality(column, other=other)
            yield Equality(other, other=column)
        elif column is not None:
            yield Equality(column, (right,))
        elif other is not None:
            yield Equality(other, (left,))


def _column(node: Message) -> Operand | None:
    if name_of(node) != "ColumnRef":
        return None
    parts = strings(node.fields)
    if "*" in parts or len(parts) > 2:
        return None
    return Operand(parts[0] if len(parts) == 2 else "", parts[-1])


def key_values(data_type: str, nodes: Sequence[Message], casts: Mapping[int, set[str]]) -> tuple[KeyValue, ...] | None:
    """The values of a key condition; None if one of them is nothing whose shard we know for certain."""
    values = [key_value(data_type, node, casts) for node in nodes]
    return tuple(value for value in values if value is not None) if all(value is not None for value in values) else None


def key_value(data_type: str, node: Message, casts: Mapping[int, set[str]]) -> KeyValue | None:
    """One literal or parameter, perhaps cast to the key's own type."""
    if name_of(node) == "TypeCast":
        if node.type_name.typmods or node.type_name.array_bounds:
            return None
        inner = unwrap(node.arg)
        known = cast_type(node) in _TYPES[data_type] and name_of(inner) in ("A_Const", "ParamRef")
        return key_value(data_type, inner, casts) if known and not _narrows(data_type, node, inner) else None
    if name_of(node) == "ParamRef":
        fits = casts.get(node.number, set()) <= _TYPES[data_type]
        return KeyValue(data_type, parameter=node.number) if fits and node.number > 0 else None
    if name_of(node) != "A_Const":
        return None
    return _constant(data_type, node)


def _narrows(data_type: str, cast: Message, inner: Message) -> bool:
    """A text literal cast to a smaller integer may fail, and `5::text` is no number: both are left to Postgres."""
    if data_type == "varchar":
        return name_of(inner) == "A_Const" and inner.WhichOneof("val") not in ("sval", None)
    return False


def _constant(data_type: str, node: Message) -> KeyValue | None:
    if node.isnull:
        return KeyValue(data_type)
    kind = node.WhichOneof("val")
    if kind == "sval":
        key = from_text(data_type, node.sval.sval)
    elif kind == "ival" and data_type == "bigint":
        key = node.ival.ival
    elif kind == "fval" and data_type == "bigint":
        key = from_text(data_type, node.fval.fval)
    else:
        key = None
    return KeyValue(data_type, constant=key) if key is not None else None


def cast_type(node: Message) -> str:
    """The name of a TypeCast's type without its schema, if that is pg_catalog."""
    parts = strings(node.type_name.names)
    return parts[-1] if parts[:-1] in ([], ["pg_catalog"]) else ".".join(parts)


def list_values(node: Message) -> list[Message]:
    """The items of a List node."""
    return [unwrap(item) for item in node.items]
