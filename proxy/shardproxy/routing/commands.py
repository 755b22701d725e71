"""Transaction control, settings and DDL."""

from __future__ import annotations

from shardproxy.errors import Refused, SqlError
from shardproxy.routing.levels import Levels
from shardproxy.routing.plan import All, Assembly, Home, Kind, Statement
from shardproxy.routing.schema import OWN_SCHEMA, RoutingContext
from shardproxy.routing.tree import Message, name_of, strings, unwrap, walk

_BEGIN, _START, _COMMIT, _ROLLBACK, _SAVEPOINT, _RELEASE, _ROLLBACK_TO = 1, 2, 3, 4, 5, 6, 7
"""TransactionStmtKind of libpg_query; 8 to 10 are the commands for prepared transactions."""
_SET_VALUE, _SET_DEFAULT, _SET_CURRENT, _SET_MULTI, _RESET, _RESET_ALL = 1, 2, 3, 4, 5, 6
"""VariableSetKind."""

SETTABLE = frozenset(
    """application_name bytea_output constraint_exclusion cpu_tuple_cost datestyle deadlock_timeout default_transaction_deferrable
    default_transaction_read_only effective_cache_size enable_bitmapscan enable_hashagg enable_hashjoin enable_indexonlyscan
    enable_indexscan enable_material enable_memoize enable_mergejoin enable_nestloop enable_parallel_append enable_parallel_hash
    enable_partition_pruning enable_partitionwise_aggregate enable_partitionwise_join enable_seqscan enable_sort enable_tidscan
    extra_float_digits geqo idle_in_transaction_session_timeout intervalstyle jit lock_timeout log_statement maintenance_work_mem
    max_parallel_workers_per_gather plan_cache_mode random_page_cost seq_page_cost statement_timeout synchronous_commit temp_buffers
    timezone transaction_timeout work_mem xmlbinary xmloption client_min_messages hash_mem_multiplier idle_session_timeout
    gin_fuzzy_search_limit join_collapse_limit from_collapse_limit row_security check_function_bodies""".split()
)
"""Settings that change neither how a statement is read nor which rows it means."""


OWN_PREFIX = "^pgshepherd/([0-9a-f]{8}/[^/]*/)?"
"""What the proxy puts before a client's application_name on the shards."""


def transaction(node: Message, text: str) -> Statement:
    """BEGIN, COMMIT, SAVEPOINT and their kind."""
    if node.chain:
        raise Refused("AND CHAIN", "send BEGIN as a statement of its own")
    match node.kind:
        case 1 | 2:
            tag = "START TRANSACTION" if node.kind == _START else "BEGIN"
            return Statement(text, Kind.BEGIN, isolation=_isolation(node.options), name=tag)
        case 3:
            return Statement(text, Kind.COMMIT)
        case 4:
            return Statement(text, Kind.ROLLBACK)
        case 5:
            return Statement(text, Kind.SAVEPOINT, name=node.savepoint_name)
        case 6:
            return Statement(text, Kind.RELEASE, name=node.savepoint_name)
        case 7:
            return Statement(text, Kind.ROLLBACK_TO, name=node.savepoint_name)
        case _:
            raise SqlError(
                "42601",
                "PREPARE TRANSACTION, COMMIT PREPARED and ROLLBACK PREPARED are the proxy's own",
                hint="say COMMIT: a transaction over several shards is committed in two phases by itself",
            )


def _isolation(options: Message) -> str | None:
    """The level that was asked for; None for READ COMMITTED, or where none was."""
    for option in (unwrap(node) for node in options):
        if option.defname == "transaction_isolation":
            level = str(unwrap(option.arg).sval.sval).lower()
            return None if level in ("read committed", "read uncommitted") else level
    return None


def variable_set(node: Message, text: str) -> Statement:
    """SET, SET LOCAL, SET TRANSACTION, RESET."""
    name = node.name.lower()
    if node.kind == _RESET_ALL:
        return Statement(text, Kind.RESET_ALL)
    if node.kind == _SET_MULTI and name == "transaction":
        return Statement(text, Kind.SET_TRANSACTION, isolation=_isolation(node.args))
    if node.kind not in (_SET_VALUE, _SET_DEFAULT, _RESET):
        raise Refused(f"SET {node.name}", "set it in the role or the database, on every shard")
    if not _harmless_value(name, node) and name not in SETTABLE:
        raise Refused(f"SET {name}", "set it for the role: ALTER ROLE ... SET, on every shard")
    return Statement(text, Kind.RESET if node.kind == _RESET else Kind.SET, name=name, is_local=node.is_local)


def _harmless_value(name: str, node: Message) -> bool:
    """A setting that must keep its value, set to just that."""
    values = [str(unwrap(argument).sval.sval).lower() for argument in node.args if name_of(unwrap(argument)) == "A_Const"]
    wanted = {
        "client_encoding": {"utf8", "utf-8", "unicode"},
        "standard_conforming_strings": {"on"},
        "default_transaction_isolation": {"read committed"},
    }
    return len(values) == 1 and values[0] in wanted.get(name, set())


def variable_show(node: Message, text: str) -> Statement:
    """SHOW name; of application_name the client sees its own part."""
    if node.name.lower() == "application_name":
        shown = f"SELECT pg_catalog.regexp_replace(pg_catalog.current_setting('application_name'), '{OWN_PREFIX}', '') AS application_name"
        return Statement(shown, Kind.SHOW, Home(), returns_rows=True, rewritten=True, name="application_name")
    return Statement(text, Kind.SHOW, Home(), returns_rows=True, name=node.name.lower())


def discard(node: Message, text: str) -> Statement:
    """DISCARD ALL, and what is a part of it."""
    if node.target != 1:
        raise Refused("DISCARD PLANS, SEQUENCES and TEMP", "use DISCARD ALL")
    return Statement(text, Kind.DISCARD_ALL)


def deallocate(node: Message, text: str) -> Statement:
    """DEALLOCATE name or ALL."""
    return Statement(text, Kind.DEALLOCATE, name=node.name)


def close_all(node: Message, text: str) -> Statement:
    """CLOSE ALL: there are no cursors of SQL's."""
    if node.portalname:
        raise Refused("CLOSE of a cursor", "cursors are not supported: read the whole result")
    return Statement(text, Kind.CLOSE_ALL)


def unlisten(node: Message, text: str) -> Statement:
    """UNLISTEN *: nothing listens."""
    return Statement(text, Kind.UNLISTEN_ALL)


DDL_NODES = frozenset({"CreateStmt", "DropStmt", "AlterTableStmt", "IndexStmt", "TruncateStmt", "CommentStmt", "RenameStmt"})
_TABLE, _INDEX = "OBJECT_TABLE", "OBJECT_INDEX"


def ddl(node: Message, text: str, context: RoutingContext) -> Statement:
    """DDL that Postgres can roll back and prepare: the same on every shard, atomically."""
    kind = name_of(node)
    if kind == "CreateStmt":
        _check_create(node)
    elif kind == "IndexStmt" and node.concurrent:
        raise Refused("CREATE INDEX CONCURRENTLY", "run it on each shard by itself")
    elif kind == "DropStmt":
        _check_object(node, node.remove_type, drop=True)
    elif kind in ("AlterTableStmt", "CommentStmt"):
        _check_object(node, node.objtype)
    elif kind == "RenameStmt":
        _check_object(node, node.rename_type)
    levels = Levels(context, {})
    for part in walk(node):
        name = name_of(part)
        if name == "RangeVar":
            if part.schemaname == OWN_SCHEMA:
                levels.find(part)
            _check_catalog(context, part.schemaname, part.relname)
        if name == "List" and (texts := _texts(part)):
            if OWN_SCHEMA in texts:
                raise Refused("DDL on the schema pgshepherd", "its tables belong to the commit protocol")
            _check_catalog(context, texts[-2] if len(texts) > 1 else "", texts[-1])
    return Statement(text, Kind.DDL, All(), writes=True, assembly=Assembly.MIRROR)


def _check_catalog(context: RoutingContext, schema: str, name: str) -> None:
    """A prepared transaction that holds an AccessExclusiveLock on one would lock everybody out, after a restart too."""
    relation = context.schema.find(schema, name)
    if relation is not None and relation.is_system:
        raise Refused(f"DDL on the system catalog {name}", "run it on each shard by itself")


def _texts(node: Message) -> list[str]:
    return strings(node.items) if all(name_of(unwrap(item)) == "String" for item in node.items) else []


def _check_create(node: Message) -> None:
    if node.relation.relpersistence == "t" or node.relation.schemaname.startswith("pg_temp"):
        raise Refused("temporary tables", "a prepared transaction can't hold them: use an ordinary table")


def _check_object(node: Message, number: int, *, drop: bool = False) -> None:
    field = "remove_type" if drop else "objtype" if name_of(node) != "RenameStmt" else "rename_type"
    name = node.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number[number].name
    if name not in (_TABLE, _INDEX, "OBJECT_COLUMN", "OBJECT_TABCONSTRAINT"):
        raise Refused(f"DDL on {name.removeprefix('OBJECT_').lower()}", "run it on each shard by itself")
    if drop and node.concurrent:
        raise Refused("DROP INDEX CONCURRENTLY", "run it on each shard by itself")
