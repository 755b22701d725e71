"""Golden vectors of PgDog's sharding function, which are PostgreSQL's own."""

from __future__ import annotations

from uuid import UUID

import pytest

from shardproxy.errors import ConfigError
from shardproxy.routing.hashing import key_hash, shard_of

VECTORS = [
    ("bigint", 0, 901916981443598768), ("bigint", 1, 11274504255086170040), ("bigint", -1, 288437243775528869),
    ("bigint", 42, 12669485132091644514), ("bigint", 10000000000, 18285387139584537965), ("bigint", 2**63 - 1, 10244051894435199606),
    ("bigint", -(2**63), 17701988066039669119), ("varchar", "a", 17047028206024085342), ("varchar", "test_value", 16854642407346284885),
    ("uuid", UUID("11111111-1111-1111-1111-111111111111"), 5619216969848565148),
]  # fmt: skip


@pytest.mark.parametrize(("data_type", "value", "wanted"), VECTORS)
def test_golden(data_type: str, value: int | str | UUID, wanted: int) -> None:
    assert key_hash(data_type, value) == wanted
    assert shard_of(data_type, value, 3) == wanted % 3


def test_an_unknown_type() -> None:
    with pytest.raises(ConfigError, match="allowed are"):
        key_hash("vector", 1)
