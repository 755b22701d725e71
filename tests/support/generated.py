"""Generated manifests: a right one, then some damage, which may or may not make it wrong.

Not generated: lone surrogates, NaN and infinity (no JSON), and metadata beyond the name (Kubernetes's own business).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from cases import REMOVED, Manifest, manifest, shard

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=70)
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
            "enabled": st.booleans(), "auto": st.booleans(), "lastAgent": st.just(False), "durability": st.just("local"),
            "recordRetention": _DURATION,
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

_WRONG = [None, True, False, 0, -1, 1, 1.5, 2.0, 2**31, 2**63, 10**30, "", "a", "1", "5s", "é", [], [None], {}, {"name": "a"}]
_BOUNDS = [0, 1, 100, 101, 10000, 10001, 65535, 65536, 2**31 - 1, 2**31]
_LENGTHS = [16, 32, 33, 57, 58, 63, 64, 253, 254]
_MARKS = ["\n", "\x00", "\x7f", "\x85", "\xa0", "\u2028", " ", ".", "..", "-", "/", "%", "A", "\u0660", "\u212a", "\ufffd", "0s"]


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
        places = list(_places(made["spec"])) if isinstance(made.get("spec"), dict) else []
        node, key = draw(st.sampled_from([*places, (made, "spec"), (made["metadata"], "name")]))
        _damage(draw, node, key)
    return made


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every value, as its container and key."""
    items = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    for key, value in items:
        yield node, key
        yield from _places(value)


def _damage(draw: st.DrawFn, node: Any, key: Any) -> None:
    """Change, remove, rename, copy or double one value."""
    value = node.get(key, "") if isinstance(node, dict) else node[key]
    how = draw(
        st.sampled_from(["edit", "edit", "edit", "cast", "wrong", "remove", "unknown", "rename", "double", "copy", "null"])
    )
    if how == "edit":
        node[key] = _edited(draw, value)
    elif how == "cast":
        node[key] = _cast(draw, value)
    elif how == "wrong":
        node[key] = copy.deepcopy(draw(st.sampled_from(_WRONG)))
    elif how == "null":
        node[key] = None
    elif how == "remove":
        node.pop(key, REMOVED) if isinstance(node, dict) else node.pop(key)
    elif how == "rename" and isinstance(node, dict):
        node["".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key)] = node.pop(key, "")
    elif how == "double" and isinstance(node, list):
        node.insert(draw(st.integers(0, len(node))), copy.deepcopy(value))
    elif how == "copy" and isinstance(node, list) and isinstance(value, dict) and isinstance(node[0], dict) and value:
        field = draw(st.sampled_from(sorted(value)))
        node[0][field] = copy.deepcopy(value[field])
    elif how == "unknown" and isinstance(value, dict):
        value[draw(st.sampled_from(["unknown", "Name", "port", "number", "key"]))] = draw(st.sampled_from([None, 1, "a", {}]))


def _cast(draw: st.DrawFn, value: Any) -> Any:
    """What a model that coerces would take for the same value."""
    if isinstance(value, bool):
        return draw(st.sampled_from([int(value), str(value).lower(), "yes"]))
    if isinstance(value, int | float):
        return draw(st.sampled_from([str(value), float(value), bool(value)]))
    return [value] if isinstance(value, str) else value


def _edited(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return draw(st.sampled_from([value - 1, value + 1, -value, value + 0.5, *_BOUNDS]))
    if isinstance(value, str):
        return _edited_text(draw, value)
    if isinstance(value, list):
        return draw(st.sampled_from([value[::-1], value[1:], value[:-1], value + value, []]))
    return dict(reversed(value.items()))


def _edited_text(draw: st.DrawFn, text: str) -> str:
    mark = draw(st.sampled_from(_MARKS))
    length = draw(st.sampled_from(_LENGTHS))
    at = draw(st.integers(0, len(text)))
    return draw(
        st.sampled_from(
            [
                text + mark,
                mark + text,
                text[:at] + mark + text[at:],
                (text or "a") * length,
                (text or "a")[:1] * length,
                f"{text}1",
                text[:-1],
            ]
        )
        | _TEXT
    )


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
