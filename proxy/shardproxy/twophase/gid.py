"""The global transaction id (GID) under which a shard's part of a cross-shard transaction is prepared.

Whoever finds a GID in pg_prepared_xacts knows from its name alone which cluster it belongs to, which shard decides, and under
which epoch and timelines it was made.  Invariant: `parse` accepts exactly what `Gid.text` writes, checksum included; any other
name is foreign (None), never an error, and nobody of ours ever touches it.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import cached_property

PREFIX = "__pgdog_2pc_s1_"
"""PgDog's prefix, then `s` (shepherd) and the version of the format."""

MAX_BYTES = 199
"""PostgreSQL refuses a longer GID with 22023."""

_HEX = "0|[1-9a-f][0-9a-f]*"
_DECIMAL = "0|[1-9][0-9]*"
_PATTERN = re.compile(
    rf"{PREFIX}(?P<cluster>[0-9a-f]{{16}})_(?P<txn>[0-9a-f]{{32}})_(?P<epoch>{_HEX})_(?P<decision_timeline>{_HEX})"
    rf"_(?P<timeline>{_HEX})_(?P<decision_shard>{_DECIMAL})_(?P<shard>{_DECIMAL})_(?P<crc>[0-9a-f]{{8}})",
    re.ASCII,
)


@dataclass(frozen=True)
class Gid:
    """One participant's name for one cross-shard transaction."""

    cluster: str
    """16 hex digits."""
    txn: str
    """32 hex digits, random, one for each cross-shard transaction."""
    epoch: int
    """The decision shard's epoch when the coordinator began to prepare."""
    decision_timeline: int
    """The decision shard's timeline, of the very connection on which its part ran."""
    timeline: int
    """This shard's timeline, of the very connection on which this part ran."""
    decision_shard: int
    shard: int

    @cached_property
    def text(self) -> str:
        """The name as PREPARE TRANSACTION gets it; about 100 bytes of lower-case ASCII without quotes."""
        body = (
            f"{PREFIX}{self.cluster}_{self.txn}_{self.epoch:x}_{self.decision_timeline:x}"
            f"_{self.timeline:x}_{self.decision_shard}_{self.shard}_"
        )
        return f"{body}{zlib.crc32(body.encode()):08x}"

    @property
    def transaction(self) -> tuple[str, str, int, int, int]:
        """What all parts of one transaction share; a name that agrees only in `txn` is somebody else's invention."""
        return (self.cluster, self.txn, self.epoch, self.decision_timeline, self.decision_shard)

    @property
    def is_decision(self) -> bool:
        """Whether this is the decision shard's own part."""
        return self.shard == self.decision_shard


def parse(name: str) -> Gid | None:
    """The GID that wrote `name`, or None if it is foreign."""
    match = _PATTERN.fullmatch(name)
    if match is None or len(name) > MAX_BYTES:
        return None
    gid = Gid(
        cluster=match["cluster"],
        txn=match["txn"],
        epoch=int(match["epoch"], 16),
        decision_timeline=int(match["decision_timeline"], 16),
        timeline=int(match["timeline"], 16),
        decision_shard=int(match["decision_shard"]),
        shard=int(match["shard"]),
    )
    return gid if gid.text == name else None
