"""PgDog's sharding function: PostgreSQL's own hash partitioning of one key, modulo the number of shards.

H(value) is hash_combine64(0, the type's extended hash with HASH_PARTITION_SEED); shard = H mod N, unsigned.  The oracle is
`satisfies_hash_partition(table, N, shard, value)` on any server (see PostgreSQL's src/common/hashfn.c and partbounds.c).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import UUID

from shardproxy.errors import ConfigError

_MASK32 = 0xFFFFFFFF
_MASK64 = 0xFFFFFFFFFFFFFFFF
_SEED = 0x7A5B22367996DCFD
"""HASH_PARTITION_SEED of partdefs."""
_COMBINE = 0x49A0F4DD15E5A8E3
"""What hash_combine64(0, h) adds."""
_INITIAL = 0x9E3779B9 + 3923095
_Triple = tuple[int, int, int]


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK32


def _mix(a: int, b: int, c: int) -> _Triple:
    a = ((a - c) & _MASK32) ^ _rotate(c, 4)
    c = (c + b) & _MASK32
    b = ((b - a) & _MASK32) ^ _rotate(a, 6)
    a = (a + c) & _MASK32
    c = ((c - b) & _MASK32) ^ _rotate(b, 8)
    b = (b + a) & _MASK32
    a = ((a - c) & _MASK32) ^ _rotate(c, 16)
    c = (c + b) & _MASK32
    b = ((b - a) & _MASK32) ^ _rotate(a, 19)
    a = (a + c) & _MASK32
    c = ((c - b) & _MASK32) ^ _rotate(b, 4)
    b = (b + a) & _MASK32
    return a, b, c


def _final(a: int, b: int, c: int) -> _Triple:
    c = ((c ^ b) - _rotate(b, 14)) & _MASK32
    a = ((a ^ c) - _rotate(c, 11)) & _MASK32
    b = ((b ^ a) - _rotate(a, 25)) & _MASK32
    c = ((c ^ b) - _rotate(b, 16)) & _MASK32
    a = ((a ^ c) - _rotate(c, 4)) & _MASK32
    b = ((b ^ a) - _rotate(a, 14)) & _MASK32
    c = ((c ^ b) - _rotate(b, 24)) & _MASK32
    return a, b, c


def _start(length: int) -> _Triple:
    initial = (_INITIAL + length) & _MASK32
    a = (initial + (_SEED >> 32)) & _MASK32
    b = (initial + (_SEED & _MASK32)) & _MASK32
    return _mix(a, b, initial)


def _finish(state: _Triple) -> int:
    _, b, c = _final(*state)
    return (((b << 32) | c) + _COMBINE) & _MASK64


def hash_bigint(value: int) -> int:
    """H of an int2, int4 or int8: equal numbers hash alike whatever their type."""
    low, high = value & _MASK32, (value >> 32) & _MASK32
    folded = low ^ (high if value >= 0 else ~high & _MASK32)
    a, b, c = _start(4)
    return _finish(((a + folded) & _MASK32, b, c))


def hash_bytes(data: bytes) -> int:
    """H of a text's UTF-8 bytes, or of a uuid's 16."""
    a, b, c = _start(len(data))
    whole = len(data) - len(data) % 12
    for at in range(0, whole, 12):
        a = (a + int.from_bytes(data[at : at + 4], "little")) & _MASK32
        b = (b + int.from_bytes(data[at + 4 : at + 8], "little")) & _MASK32
        c = (c + int.from_bytes(data[at + 8 : at + 12], "little")) & _MASK32
        a, b, c = _mix(a, b, c)
    rest = data[whole:]
    a = (a + int.from_bytes(rest[:4], "little")) & _MASK32
    b = (b + int.from_bytes(rest[4:8], "little")) & _MASK32
    c = (c + (int.from_bytes(rest[8:], "little") << 8)) & _MASK32  # the lowest byte of c is reserved for the length
    return _finish((a, b, c))


Key = int | str | UUID
"""A key's value: bigint, varchar, uuid."""

_HASHES: Mapping[str, Callable[[Key], int]] = {
    "bigint": lambda value: hash_bigint(int(value)),
    "varchar": lambda value: hash_bytes(str(value).encode()),
    "uuid": lambda value: hash_bytes(value.bytes if isinstance(value, UUID) else UUID(str(value)).bytes),
}


def key_hash(data_type: str, value: Key) -> int:
    """H of a key; `data_type` in PgDog's words."""
    if data_type not in _HASHES:
        raise ConfigError(f"data type {data_type!r} can't be a sharding key: allowed are {', '.join(sorted(_HASHES))}")
    return _HASHES[data_type](value)


def shard_of(data_type: str, value: Key, shards: int) -> int:
    """The position of the shard that holds this key."""
    return key_hash(data_type, value) % shards
