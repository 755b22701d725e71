"""Which functions a statement may call, and how much they may differ from shard to shard."""

from __future__ import annotations

from collections.abc import Iterator

from shardproxy.errors import Refused
from shardproxy.routing.schema import Schema
from shardproxy.routing.tree import Message, name_of, strings, unwrap, walk

HARMLESS_VOLATILE = frozenset(
    """clock_timestamp timeofday random random_normal gen_random_uuid uuidv4 uuidv7 pg_sleep pg_sleep_for pg_sleep_until
    txid_current_if_assigned pg_current_xact_id_if_assigned pg_is_in_recovery pg_is_wal_replay_paused pg_database_size
    pg_tablespace_size pg_relation_size pg_table_size pg_total_relation_size pg_indexes_size pg_relation_filepath pg_backend_pid
    pg_blocking_pids pg_postmaster_start_time pg_current_wal_lsn pg_last_wal_receive_lsn pg_stat_get_activity
    pg_encoding_to_char has_table_privilege pg_partition_ancestors pg_partition_tree pg_get_publication_tables
    pg_lock_status pg_prepared_xact pg_show_all_settings pg_cursor pg_prepared_statement pg_timezone_names""".split()
)
"""Volatile, but they change nothing: what psql's commands and drivers' introspection call."""

HINTS = {
    "nextval": "each shard has sequences of its own: make keys in the application",
    "setval": "set sequences on each shard by itself",
    "currval": "each shard has sequences of its own: use RETURNING",
    "lastval": "each shard has sequences of its own: use RETURNING",
    "set_config": "use SET",
    "pg_notify": "listen and notify on one Postgres by itself",
    "pg_terminate_backend": "connect to the shard itself",
    "pg_cancel_backend": "cancel through the driver",
}
UNLOCK_ALL = "pg_advisory_unlock_all"
"""Allowed: no session of ours can hold an advisory lock, and drivers send it whenever they reset a connection."""


def volatility(statement: Message, schema: Schema) -> str:
    """The worst of all function calls in it (i, s, v); raises Refused for one that is not known to be right."""
    worst = "i"
    for node in walk(statement):
        kind = name_of(node)
        if kind == "SQLValueFunction":
            worst = max(worst, "s")
        elif kind == "FuncCall" and _sets_jit(node) is not None:
            worst = "v"
        elif kind == "FuncCall":
            worst = max(worst, _call(strings(node.funcname), schema))
    return worst


def _sets_jit(node: Message) -> Message | None:
    """The third argument of set_config('jit', value, boolean), by which asyncpg makes its introspection quick; None if it is not that.

    jit changes nothing but time, so it may be left to the one statement: see `session_flags`.
    """
    if strings(node.funcname)[-1] != "set_config" or len(node.args) != 3:
        return None
    name, value, is_local = (unwrap(argument) for argument in node.args)
    constant = name_of(name) == name_of(is_local) == "A_Const" and name_of(value) in ("A_Const", "ParamRef")
    if not constant or name.sval.sval != "jit" or is_local.WhichOneof("val") != "boolval":
        return None
    return is_local


def session_flags(statement: Message) -> Iterator[int]:
    """Where a text (in bytes) says `false` for a setting that must not outlive its transaction: it belongs to a pooled connection."""
    for node in walk(statement):
        flag = _sets_jit(node) if name_of(node) == "FuncCall" else None
        if flag is not None and not flag.boolval.boolval:
            yield flag.location


def _call(parts: list[str], schema: Schema) -> str:
    name, namespace = parts[-1], parts[-2] if len(parts) > 1 else ""
    function = schema.functions.get(name)
    if name == UNLOCK_ALL:
        return "v"
    if namespace not in ("", "pg_catalog") or function is None or not (function.only_system or namespace == "pg_catalog"):
        raise Refused(
            f"the function {'.'.join(parts)}()",
            "only functions of PostgreSQL itself can be called, or call it on the shard itself",
        )
    if name in HARMLESS_VOLATILE or function.volatility != "v":
        return function.volatility
    raise Refused(f"the function {name}()", HINTS.get(name, "it may change something on one shard only"))
