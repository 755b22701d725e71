"""The types of single values in a manifest: shapes and bounds.

Invariant: each accepts what its schema in crds/shardedclusters.yaml accepts.  Patterns avoid backslash classes: \\d takes Arabic
digits in Python, and does not in the API server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class Shape:
    """pydantic's own `pattern` would show users the pattern; this says what is wanted."""

    pattern: str
    words: str

    def check(self, text: str) -> str:
        """The text itself; raises ValueError."""
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError(self.words)
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"pattern": self.pattern}


DURATION = Shape(
    r"^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}(\.[0-9]{1,3})?s)?$", "a duration is written like 5s, 2.5s, 10m or 1h30m"
)
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_HOST_LABEL = "[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?"
_IPV6 = "[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[-A-Za-z0-9_.]{1,15})?"

IDENTIFIER_BYTES = 63
"""PostgreSQL cuts a longer name off, and would then mean another object."""
TOO_MANY_BYTES = f"must be at most {IDENTIFIER_BYTES} bytes long in UTF-8, as PostgreSQL's names are"


def seconds(duration: str) -> float:
    """`1h30m`, `10m`, `2.5s` in seconds; raises ValueError for anything else."""
    match = re.fullmatch(DURATION.pattern, duration)
    if match is None or not duration:
        raise ValueError(DURATION.words)
    hours, minutes, rest = (float((part or "0s")[:-1]) for part in match.group(1, 2, 3))
    return hours * 3600 + minutes * 60 + rest


def _short_enough(text: str) -> str:
    if len(text.encode()) > IDENTIFIER_BYTES:
        raise ValueError(TOO_MANY_BYTES)
    return text


Port = Annotated[int, Field(ge=1, le=65535)]
ShardNumber = Annotated[int, Field(ge=0, le=2147483647)]
Replicas = Annotated[int, Field(ge=0, le=100)]
PerProxy = Annotated[int, Field(ge=1, le=10000)]
"""Connections, or prepared transactions, that one proxy may have on one shard."""

Duration = Annotated[str, Field(min_length=1, max_length=32), DURATION]
ClusterId = Annotated[str, Field(max_length=16), Shape("^[0-9a-f]{16}$", "a cluster id is 16 digits of 0-9a-f")]

Name = Annotated[
    str, Field(max_length=63), Shape(f"^{_LABEL}$", "only a-z, 0-9 and - are allowed, and a letter or digit at both ends")
]
ClusterName = Annotated[
    str,
    Field(max_length=57),
    Shape("^[a-z]([-a-z0-9]*[a-z0-9])?$", "only a-z, 0-9 and - are allowed, a letter first, a letter or digit last"),
]
"""With `-proxy` behind it, it is a Service's name."""
SecretName = Annotated[
    str, Field(max_length=253), Shape(rf"^{_LABEL}(\.{_LABEL})*$", "a Secret's name has only a-z, 0-9, - and . in it")
]
SecretKey = Annotated[
    str,
    Field(min_length=1, max_length=253),
    Shape(r"^\.?[-_A-Za-z0-9][-._A-Za-z0-9]*$", "a Secret's key has only letters, digits, -, _ and . in it, and no .. in front"),
]
"""It is a file's name as well, and must not lead out of its folder."""

Identifier = Annotated[
    str,
    Field(min_length=1, max_length=63),
    Shape(r"^[^\x00-\x1f\x7f-\x9f]*$", "control characters are not allowed"),
    AfterValidator(_short_enough),
]
"""PostgreSQL's name of a database, a role, a table or a column."""
Host = Annotated[
    str,
    Field(min_length=1, max_length=253),
    Shape(rf"^(({_HOST_LABEL}\.)*{_HOST_LABEL}\.?|{_IPV6})$", "a host is a DNS name, or an IPv4 or IPv6 address"),
]
"""The resolver raises UnicodeError, no DNS error, for a label that is empty or longer than 63."""
