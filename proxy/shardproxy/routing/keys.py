"""Sharding keys: from a literal or a parameter to the shard.

Invariant: a value is either decoded exactly as Postgres would read it, or it is no key: never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from shardproxy.errors import Refused
from shardproxy.routing.hashing import Key, shard_of
from shardproxy.routing.plan import Param

_INTEGER = re.compile(r"[ \t\n\r\f\v]*[+-]?[0-9]+[ \t\n\r\f\v]*", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}", re.ASCII)
_OIDS = {"bigint": frozenset({0, 20, 21, 23}), "varchar": frozenset({0, 25, 1043, 705}), "uuid": frozenset({0, 2950})}
"""Declared types of a parameter that compare with the key as it is."""


def from_text(data_type: str, text: str) -> Key | None:
    """A key's text form as Postgres reads it; None where it would not, or where we are not sure."""
    if data_type == "varchar":
        return text
    if data_type == "uuid":
        return UUID(text) if _UUID.fullmatch(text) else None
    if not _INTEGER.fullmatch(text):
        return None
    value = int(text)
    return value if -(1 << 63) <= value < 1 << 63 else None


def from_param(data_type: str, param: Param) -> Key | None:
    """A bound parameter's value; None for NULL and for text that Postgres itself will refuse.

    Raises Refused for a declared type or a binary format that does not compare with the key as it is.
    """
    if param.oid not in _OIDS[data_type]:
        raise Refused(
            f"a sharding key given as a parameter of the type with OID {param.oid}",
            f"declare or cast the parameter as {data_type}",
        )
    if param.value is None:
        return None
    if not param.binary or data_type == "varchar":
        try:
            return from_text(data_type, param.value.decode())
        except UnicodeDecodeError:
            return None
    if data_type == "uuid" and len(param.value) == 16:
        return UUID(bytes=param.value)
    if data_type == "bigint" and len(param.value) in (2, 4, 8):
        return int.from_bytes(param.value, "big", signed=True)
    raise Refused(f"a binary sharding key of {len(param.value)} bytes", f"bind the key as {data_type}")


@dataclass(frozen=True)
class KeyValue:
    """One value of a key: a constant, NULL, or a parameter."""

    data_type: str
    constant: Key | None = None
    parameter: int = 0
    """1 for $1; 0 = a constant."""

    def resolve(self, parameters: Sequence[Param]) -> Key | None:
        """None: NULL, or something that Postgres will refuse wherever it goes."""
        if self.parameter == 0:
            return self.constant
        return from_param(self.data_type, parameters[self.parameter - 1])


@dataclass(frozen=True)
class Keyed:
    """The shards of some keys: for each sharded relation (or inserted row) of the statement, the values that its key may have."""

    choices: tuple[tuple[KeyValue, ...], ...]
    may_fan_out: bool = False
    """Whether the statement may run on several shards, with the rows concatenated; else all must meet in one."""
    null_allowed: bool = True
    """False for rows to be inserted: a row without its key belongs nowhere."""

    def shards(self, parameters: Sequence[Param], *, count: int, home: int) -> frozenset[int]:
        """Raises Refused where the keys lead to several shards and must not, or where a key to be inserted is NULL."""
        found: set[int] = set()
        for values in self.choices:
            for value in values:
                key = value.resolve(parameters)
                if key is not None:
                    found.add(shard_of(value.data_type, key, count))
                elif not self.null_allowed and _is_null(value, parameters):
                    raise Refused("a row whose sharding key is NULL", "give every row its key")
        if len(found) > 1 and not self.may_fan_out:
            raise Refused(
                "this statement over several shards",
                "it is answered when all its keys live on one shard: send one statement for each key",
            )
        return frozenset(found) or frozenset({home})


def _is_null(value: KeyValue, parameters: Sequence[Param]) -> bool:
    return value.parameter == 0 or parameters[value.parameter - 1].value is None
