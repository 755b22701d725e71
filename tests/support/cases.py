"""Named manifests, right and wrong: the same cases go to the models and to a real API server."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]

REMOVED: Any = object()
"""As a value: take the field out."""

_REF = {"name": "recovery"}


def manifest(*edits: tuple[str, Any]) -> Manifest:
    """Two shards; then each edit sets what is at a path such as `spec.shards.0.port`."""
    made = {
        "apiVersion": "pgshepherd.io/v1alpha1",
        "kind": "ShardedCluster",
        "metadata": {"name": "shop"},
        "spec": {
            "database": "shop",
            "shards": [shard("a", host="pg-0"), shard("b", host="pg-1")],
            "users": [{"name": "app", "passwordSecretRef": {"name": "app"}}],
        },
    }
    for path, value in edits:
        _set(made, path.split("."), copy.deepcopy(value) if value is not REMOVED else value)
    return made


def shard(name: str, **fields: Any) -> dict[str, Any]:
    """With what must be there."""
    return {"name": name, "host": f"{name}.example", "database": "shop", "credentialsSecretRef": _REF} | fields


def _set(node: Any, path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
    key: Any = int(path[-1]) if isinstance(node, list) else path[-1]
    if value is REMOVED:
        del node[key]
    else:
        node[key] = value


def largest() -> Manifest:
    """Everything at its bound: what rules cost on the API server grows with it."""
    name = "n" * 60
    ref = {"name": "s" * 253, "usernameKey": "u" * 253, "passwordKey": "p" * 253}
    host = ".".join(["h" * 63] * 3 + ["h" * 60])
    refs = {"credentialsSecretRef": ref, "coordinatorSecretRef": ref, "installerSecretRef": ref}
    shards = [
        shard(f"{name}{n:03}", host=host, port=65535, database=f"{name}{n:03}", number=2147483647 - 63 + n, **refs)
        for n in range(64)
    ]
    users = [{"name": f"{name}{n:03}", "passwordSecretRef": {"name": "s" * 253, "key": "k" * 253}} for n in range(256)]
    tables = [{"column": "c" * 63, "schema": "s" * 63, "name": f"{name}{n:03}", "dataType": "varchar"} for n in range(128)]
    return manifest(
        ("metadata.name", "c" * 57), ("spec.database", "d" * 63), ("spec.clusterID", "f" * 16), ("spec.shards", shards),
        ("spec.users", users), ("spec.shardedTables", tables),
        ("spec.proxy", {"replicas": 100, "port": 65535, "poolSize": 10000, "slotsPerShard": 10000}),
        ("spec.recovery", {"gracePeriod": "99999h99999m99999.999s", "alertAfter": "99999h"}),
    )  # fmt: skip


def many(count: int, **fields: Any) -> list[dict[str, Any]]:
    """Shards."""
    return [shard(f"s{n}", **fields) for n in range(count)]


_HALF = "spec.shards.1"
VALID: dict[str, Manifest] = {
    "the least": manifest(),
    "everything at its bound": largest(),
    "nulls are absent fields": manifest(
        ("spec.clusterID", None), ("spec.proxy", None), ("spec.shardedTables", None), ("spec.twoPhaseCommit.enabled", None),
        (f"{_HALF}.number", None), (f"{_HALF}.port", None), (f"{_HALF}.installerSecretRef", None),
    ),
    "last agent, replicated": manifest(
        ("spec.twoPhaseCommit.lastAgent", True), ("spec.twoPhaseCommit.durability", "replicated")
    ),
    "empty objects": manifest(("spec.proxy", {}), ("spec.recovery", {}), ("spec.twoPhaseCommit", {}), ("spec.shardedTables", [])),
    "numbers with gaps": manifest(("spec.shards.0.number", 3), (f"{_HALF}.number", 9)),
    "a number only where positions have a gap": manifest((f"{_HALF}.number", 2)),
    "two databases of one server": manifest((f"{_HALF}.host", "pg-0"), (f"{_HALF}.database", "other")),
    "two servers of one host": manifest((f"{_HALF}.host", "pg-0"), (f"{_HALF}.port", 5433)),
    "IPv6": manifest((f"{_HALF}.host", "fe80::1%eth0"), ("spec.shards.0.host", "::ffff:10.0.0.1")),
    "a host's name with a dot behind": manifest((f"{_HALF}.host", "Pg_1.db.svc.cluster.local.")),
    "names that need quotes": manifest(("spec.database", 'a "b" \\ %'), ("spec.users.0.name", "Ünsal;--'")),
    "63 bytes in UTF-8": manifest(("spec.users.0.name", "ü" * 31 + "u")),
    "four bytes each": manifest(("spec.users.0.name", "\U0001f418" * 15)),
    "a Secret's name with dots": manifest(("spec.users.0.passwordSecretRef", {"name": "shop.app", "key": ".pgpass"})),
    "one table in two schemas": manifest(
        ("spec.shardedTables", [{"column": "id", "name": "t", "schema": "a"}, {"column": "id", "name": "t", "schema": "b"}])
    ),
    "a table and a column of all": manifest(("spec.shardedTables", [{"column": "id", "name": "t"}, {"column": "id"}])),
    "only watching": manifest(("spec.proxy.replicas", 0), ("spec.recovery.mode", "Observe")),
    "durations": manifest(("spec.recovery.gracePeriod", "0s"), ("spec.recovery.alertAfter", "1h2m3.004s")),
    "a status, as kubectl get writes it": manifest(("status", {"inDoubt": 3, "clusterID": None})),
    "a cluster's name of 57": manifest(("metadata.name", "s" * 57)),
}  # fmt: skip


@dataclass(frozen=True)
class Invalid:
    """A manifest that is refused, by both with its place, and where we choose the words, with these."""

    manifest: Manifest
    where: str
    says: str = ""


def _at(path: str, value: Any, says: str = "", where: str | None = None) -> Invalid:
    place = path.replace(".0", "[0]").replace(".1", "[1]") if where is None else where
    return Invalid(manifest((path, value)), place, says)


_ASCENDING = "shards must stand in ascending order of their numbers"
_ONCE = "may be listed once"
INVALID: dict[str, Invalid] = {
    "no spec": _at("spec", REMOVED),
    "a null spec": _at("spec", None),
    "no database": _at("spec.database", REMOVED),
    "a null database": _at("spec.database", None),
    "another kind": _at("kind", "Shard", where=""),
    "another version": _at("apiVersion", "pgshepherd.io/v1", where=""),
    "no name": _at("metadata.name", REMOVED, where="name"),
    "a name too long for a Service": _at("metadata.name", "s" * 58),
    "a name that begins with a digit": _at("metadata.name", "1shop"),
    "a name with a dot": _at("metadata.name", "shop.eu"),
    "unknown at the root": _at("specs", {}),
    "unknown in spec": _at("spec.shard", []),
    "unknown, null": _at("spec.shard", None),
    "unknown in a shard": _at("spec.shards.0.hostname", "a"),
    "unknown in a reference": _at("spec.users.0.passwordSecretRef.namespace", "a"),
    "snake_case": _at("spec.two_phase_commit", {}),
    "no shards": _at("spec.shards", []),
    "65 shards": _at("spec.shards", many(65)),
    "shards as a map": _at("spec.shards", {"a": shard("a")}),
    "a null shard": _at("spec.shards.1", None),
    "a shard without a login": _at("spec.shards.1.credentialsSecretRef", REMOVED),
    "two shards of one name": _at("spec.shards.1.name", "a", where="spec.shards"),
    "two shards of one place": _at("spec.shards.1.host", "pg-0", "host, port and database must be unique", "spec.shards"),
    "the same port, once by default": Invalid(
        manifest(("spec.shards.1.host", "pg-0"), ("spec.shards.0.port", 5432)),
        "spec.shards",
        "host, port and database must be unique",
    ),
    "numbers that descend": _at("spec.shards.0.number", 2, _ASCENDING, "spec.shards"),
    "one number twice": _at("spec.shards.0.number", 1, _ASCENDING, "spec.shards"),
    "a default number that is taken": _at("spec.shards.1.number", 0, _ASCENDING, "spec.shards"),
    "a shard's name in capitals": _at("spec.shards.0.name", "A"),
    "a shard's name of 64": _at("spec.shards.0.name", "a" * 64),
    "a negative number": _at("spec.shards.0.number", -1),
    "a number of 32 bits": _at("spec.shards.1.number", 2**31),
    "a number of 65 bits": _at("spec.shards.1.number", 2**64),
    "port 0": _at("spec.shards.0.port", 0),
    "port 65536": _at("spec.shards.0.port", 65536),
    "a port as text": _at("spec.shards.0.port", "5432"),
    "half a port": _at("spec.shards.0.port", 5432.5),
    "a port with a decimal point": _at("spec.shards.0.port", 5432.0),
    "a number with a decimal point": _at("spec.shards.1.number", 7.0),
    "the first number with a decimal point": _at("spec.shards.0.number", 0.0),
    "proxies with a decimal point": _at("spec.proxy.replicas", 3.0),
    "the proxy's port with a decimal point": _at("spec.proxy.port", 6432.0),
    "connections with a decimal point": _at("spec.proxy.poolSize", 10.0),
    "slots with a decimal point": _at("spec.proxy.slotsPerShard", 20.0),
    "a port that is true": _at("spec.shards.0.port", True),
    "a host with a port": _at("spec.shards.0.host", "pg-0,pg-1"),
    "a socket's folder": _at("spec.shards.0.host", "/var/run/postgresql"),
    "an empty label": _at("spec.shards.0.host", "pg..example"),
    "a label of 64": _at("spec.shards.0.host", "a" * 64),
    "a host with a line's end": _at("spec.shards.0.host", "pg-0\n"),
    "a host beyond ASCII": _at("spec.shards.0.host", "pg-ü"),
    "an empty host": _at("spec.shards.0.host", ""),
    "an empty identifier": _at("spec.database", ""),
    "an identifier of 64": _at("spec.database", "a" * 64),
    "an identifier of 64 bytes": _at("spec.database", "ü" * 32, "must be at most 63 bytes long in UTF-8"),
    "a table of 64 bytes": Invalid(
        manifest(("spec.shardedTables", [{"column": "c", "name": "ü" * 32}])), "spec.shardedTables[0].name", "at most 63 bytes"
    ),
    "a NUL": _at("spec.users.0.name", "a\0b"),
    "a line's end": _at("spec.shards.1.database", "a\n"),
    "a control character above ASCII": _at("spec.users.0.name", "a\x85"),
    "no users": _at("spec.users", []),
    "257 users": _at("spec.users", [{"name": f"u{n}", "passwordSecretRef": {"name": "a"}} for n in range(257)]),
    "two users of one name": _at("spec.users", [{"name": "u", "passwordSecretRef": {"name": "a"}}] * 2),
    "a password in the spec": _at("spec.users.0.password", "secret"),
    "a key that leads out": _at("spec.users.0.passwordSecretRef.key", "../other/password"),
    "a key of two dots": _at("spec.users.0.passwordSecretRef.key", ".."),
    "a Secret's name with a slash": _at("spec.users.0.passwordSecretRef.name", "a/b"),
    "a Secret's name of two dots": _at("spec.users.0.passwordSecretRef.name", ".."),
    "129 tables": _at("spec.shardedTables", [{"column": f"c{n}"} for n in range(129)]),
    "a table without a key": _at("spec.shardedTables", [{"name": "t"}], where="spec.shardedTables[0].column"),
    "a table twice": _at("spec.shardedTables", [{"column": "a", "name": "t"}, {"column": "b", "name": "t"}], _ONCE),
    "a column twice": _at("spec.shardedTables", [{"column": "a"}, {"column": "a", "dataType": "uuid"}], _ONCE),
    "another type of key": _at(
        "spec.shardedTables", [{"column": "a", "dataType": "text"}], where="spec.shardedTables[0].dataType"
    ),
    "last agent as 0": _at("spec.twoPhaseCommit.lastAgent", 0),
    "another durability": _at("spec.twoPhaseCommit.durability", "remote"),
    "yes": _at("spec.twoPhaseCommit.enabled", "yes"),
    "101 proxies": _at("spec.proxy.replicas", 101),
    "no connections": _at("spec.proxy.poolSize", 0),
    "10001 slots": _at("spec.proxy.slotsPerShard", 10001),
    "another mode": _at("spec.recovery.mode", "resolve"),
    "no duration": _at("spec.recovery.gracePeriod", ""),
    "a duration without a unit": _at("spec.recovery.gracePeriod", "5"),
    "a number for a duration": _at("spec.recovery.gracePeriod", 5),
    "a duration in Arabic digits": _at("spec.recovery.gracePeriod", "\u0665s"),
    "a duration of six digits": _at("spec.recovery.alertAfter", "100000s"),
    "a duration backwards": _at("spec.twoPhaseCommit.recordRetention", "5s1h"),
    "a cluster id in capitals": _at("spec.clusterID", "ABCDEF0123456789"),
    "a cluster id of 15": _at("spec.clusterID", "0" * 15),
}


@dataclass(frozen=True)
class Change:
    """From one manifest to the next; refused with these words, or allowed."""

    old: Manifest
    new: Manifest
    says: str = ""


_FIXED = "a shard's number is fixed for ever"
_REUSED = "a shard's number is never another shard's"
_THREE = [shard("a"), shard("b"), shard("c")]
_ID = ("spec.clusterID", "0123456789abcdef")


def _shards(old: list[Any], new: list[Any], says: str = "") -> Change:
    return Change(manifest(("spec.shards", old)), manifest(("spec.shards", new)), says)


CHANGES: dict[str, Change] = {
    "nothing": Change(manifest(), manifest()),
    "the largest": Change(largest(), largest()),
    "another host": Change(manifest(), manifest(("spec.shards.0.host", "elsewhere"))),
    "numbers written out": _shards(_THREE, [shard("a", number=0), shard("b", number=1), shard("c", number=2)]),
    "numbers no longer written out": _shards([shard("a", number=0), shard("b", number=1)], [shard("a"), shard("b")]),
    "a shard more": _shards(_THREE, [*_THREE, shard("d")]),
    "a shard more, with a number": _shards(_THREE, [*_THREE, shard("d", number=8)]),
    "the last shard less": _shards(_THREE, _THREE[:2]),
    "a shard less, the rest with its numbers": _shards(_THREE, [shard("b", number=1), shard("c", number=2)]),
    "a shard less, so that others move up": _shards(_THREE, _THREE[1:], _FIXED),
    "another number": _shards(_THREE, [*_THREE[:2], shard("c", number=3)], _FIXED),
    "two shards exchanged": _shards(_THREE, [shard("b"), shard("a"), shard("c")], _FIXED),
    "a new shard in front": _shards(_THREE, [shard("d"), *_THREE], _FIXED),
    "a shard renamed": _shards(_THREE, [*_THREE[:2], shard("d")], _REUSED),
    "a number of one that goes, for one that comes": _shards(_THREE, [*_THREE[:2], shard("d", number=2)], _REUSED),
    "another database": Change(manifest(), manifest(("spec.database", "other")), "the database may not change"),
    "a cluster id": Change(manifest(), manifest(_ID)),
    "the same cluster id": Change(manifest(_ID), manifest(_ID)),
    "another cluster id": Change(
        manifest(_ID), manifest(("spec.clusterID", "f" * 16)), "clusterID may not change once it is set"
    ),
    "a cluster id taken out": Change(manifest(_ID), manifest(), "clusterID may not change once it is set"),
}
