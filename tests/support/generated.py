"""Generated manifests: a right one, then some damage, which may or may not make it wrong.

Not generated: lone surrogates, NaN and infinity (no JSON), and metadata beyond the name (Kubernetes's own business).
"""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from cases import Manifest, manifest, shard
from damage import damage

_LABEL = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
_IDENTIFIER = st.one_of(
    st.sampled_from(["shop", "a", "A b", "Größe", "\U0001f418" * 15, "x" * 63, '"']),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=15),
)
_HOST = st.sampled_from(["pg-0", "pg-1.db.svc", "10.0.0.1", "::1", "a_b.example.", "h" * 63])
_KEY = st.sampled_from(["password", ".a", "a..b", "k" * 253, "_-."])
_DURATION = st.from_regex(r"([0-9]{1,5}h)?([0-9]{1,5}m)?[0-9]{1,5}(\.[0-9]{1,3})?s", fullmatch=True)
_LOGIN = st.fixed_dictionaries({"name": _LABEL}, optional={"usernameKey": _KEY, "passwordKey": _KEY})
_PORT = st.sampled_from([1, 5432, 65535])
_PER_PROXY = st.sampled_from([1, 10, 10000])

_SHARD_OPTIONS = st.fixed_dictionaries(
    {}, optional={"host": _HOST, "port": _PORT, "coordinatorSecretRef": _LOGIN, "installerSecretRef": _LOGIN}
)
_USER = st.fixed_dictionaries(
    {"name": _IDENTIFIER, "passwordSecretRef": st.fixed_dictionaries({"name": _LABEL}, optional={"key": _KEY})}
)
_TABLE = st.fixed_dictionaries(
    {"column": _IDENTIFIER},
    optional={"dataType": st.sampled_from(["bigint", "varchar", "uuid"]), "name": _IDENTIFIER, "schema": _IDENTIFIER},
)
_OPTIONS = {
    "clusterID": st.from_regex("[0-9a-f]{16}", fullmatch=True),
    "shardedTables": st.lists(_TABLE, max_size=3),
    "twoPhaseCommit": st.fixed_dictionaries(
        {},
        optional={
            "enabled": st.booleans(), "auto": st.booleans(), "lastAgent": st.booleans(),
            "durability": st.sampled_from(["local", "replicated"]), "recordRetention": _DURATION,
        },
    ),
    "proxy": st.fixed_dictionaries(
        {},
        optional={"replicas": st.sampled_from([0, 1, 100]), "port": _PORT, "poolSize": _PER_PROXY, "slotsPerShard": _PER_PROXY},
    ),
    "recovery": st.fixed_dictionaries(
        {}, optional={"mode": st.sampled_from(["Observe", "Resolve"]), "gracePeriod": _DURATION, "alertAfter": _DURATION}
    ),
}  # fmt: skip


@st.composite
def shards(draw: st.DrawFn, names: st.SearchStrategy[str] = _LABEL) -> list[dict[str, Any]]:
    """With numbers written out from some position on; databases keep places apart."""
    found = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    first = draw(st.integers(0, len(found)))
    gap = draw(st.sampled_from([0, 0, 1, 5]))
    made = []
    for position, name in enumerate(found):
        number = {"number": position + gap} if position >= first else {}
        made.append(shard(name, database=f"d{position}", **number, **draw(_SHARD_OPTIONS)))
    return made


@st.composite
def clusters(draw: st.DrawFn) -> Manifest:
    """Nearly always right (names may be too long in bytes, tables may be listed twice)."""
    spec = {
        "database": draw(_IDENTIFIER),
        "shards": draw(shards()),
        "users": draw(st.lists(_USER, min_size=1, max_size=3, unique_by=str)),
        **draw(st.fixed_dictionaries({}, optional=_OPTIONS)),
    }
    return manifest(("spec", spec))


@st.composite
def damaged(draw: st.DrawFn) -> Manifest:
    """Once or twice."""
    made = copy.deepcopy(draw(clusters()))
    for _ in range(draw(st.sampled_from([1, 1, 2]))):
        damage(draw, made)
    return made


@st.composite
def successors(draw: st.DrawFn) -> tuple[Manifest, Manifest]:
    """An old manifest and a new one; few names, so that shards and numbers meet again."""
    names = st.sampled_from(["a", "b", "c", "d"])
    old = manifest(("spec.shards", draw(shards(names))))
    new = copy.deepcopy(old)
    if draw(st.booleans()):
        new["spec"]["shards"] = draw(shards(names))
    else:
        _rearrange(draw, new["spec"]["shards"])
    ids = st.sampled_from([None, "0" * 16, "1" * 16])
    old["spec"]["clusterID"], new["spec"]["clusterID"] = draw(ids), draw(ids)
    new["spec"]["database"] = draw(st.sampled_from(["shop", "shop", "shop", "other"]))
    return old, new


def _rearrange(draw: st.DrawFn, made: list[dict[str, Any]]) -> None:
    """Numbers written out or not, a shard less, a shard more."""
    if draw(st.booleans()):
        for position, one in enumerate(made):
            one.setdefault("number", position)
    if len(made) > 1 and draw(st.booleans()):
        made.pop(draw(st.integers(0, len(made) - 1)))
    if draw(st.booleans()):
        made.insert(draw(st.integers(0, len(made))), shard("e", number=draw(st.integers(0, 6))))
