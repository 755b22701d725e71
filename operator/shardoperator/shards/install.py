"""The SQL that a shard needs once: tables, and the rights of the two logins.

Invariant: it may be run any number of times; it gives no login more than docs/commit-protocol.md says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from shardoperator.errors import ShardError
from shardoperator.shards.connect import ShardTarget, close, connect, execute, fetch
from shardproxy.twophase import records

AUDIT_TABLE = """\
CREATE TABLE IF NOT EXISTS pgshepherd.audit (
  at timestamptz NOT NULL DEFAULT clock_timestamp(), who name NOT NULL DEFAULT session_user, cluster text NOT NULL,
  txn uuid, shard int, action text NOT NULL, reason text NOT NULL, evidence text[] NOT NULL DEFAULT '{}');
"""
"""What recovery has done, and why."""


@dataclass(frozen=True)
class Logins:
    """Who may do what."""

    recovery: str
    coordinator: str
    users: tuple[str, ...]
    """Application roles: recovery must be able to finish what they prepared."""


def install_sql(logins: Logins, version: int) -> str:
    """For one shard; `version` is its server_version_num."""
    parts = [
        f"DO $$ BEGIN CREATE ROLE {records.OWNER_ROLE} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;\n",
        f"CREATE SCHEMA IF NOT EXISTS pgshepherd AUTHORIZATION {records.OWNER_ROLE};\n",
        records.TABLES,
        AUDIT_TABLE,
        *(f"ALTER TABLE pgshepherd.{table} OWNER TO {records.OWNER_ROLE};\n" for table in ("shard", "commit_record", "audit")),
        *grants(logins, version),
    ]
    return "".join(parts)


def grants(logins: Logins, version: int) -> list[str]:
    """The rights of the two logins, each on a line of its own."""
    recovery, coordinator = _quoted(logins.recovery), _quoted(logins.coordinator)
    lines = [
        f"GRANT SELECT ON pgshepherd.shard, pgshepherd.commit_record TO {recovery}, {coordinator};\n",
        f"GRANT INSERT ON pgshepherd.commit_record TO {recovery}, {coordinator};\n",
        f"GRANT INSERT, UPDATE ON pgshepherd.shard TO {recovery};\n",
        f"GRANT DELETE ON pgshepherd.commit_record TO {recovery};\n",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON pgshepherd.audit TO {recovery};\n",
    ]
    option = " WITH SET TRUE, INHERIT FALSE" if version >= 160000 else ""
    lines.extend(f"GRANT {_quoted(user)} TO {recovery}{option};\n" for user in logins.users if user != logins.recovery)
    return lines


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def install(target: ShardTarget, logins: Logins) -> None:
    """Run it as the installer; raises ShardError with Postgres's own words."""
    connection = await connect(target, application="installer")
    try:
        version = int((await fetch(connection, "SELECT current_setting('server_version_num')"))[0][0])
        try:
            await execute(connection, install_sql(logins, version), timeout=30.0)
        except asyncpg.PostgresError as error:
            raise ShardError(
                "NotInstalled", f"{target.where}: the installer {target.user!r} could not install: {error}"
            ) from error
    finally:
        close(connection)


_TABLE_CHECK = """
SELECT c.relname, c.relkind = 'r' AND c.relpersistence = 'p' AND NOT c.relispartition AS plain,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid) OR c.relname = 'audit' AS keyed,
       NOT (c.relrowsecurity OR c.relforcerowsecurity) AS open,
       NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid) AS quiet,
       NOT EXISTS (SELECT FROM pg_publication_tables p WHERE p.schemaname = 'pgshepherd' AND p.tablename = c.relname) AS private,
       (SELECT r.rolname = 'pgshepherd' AND NOT r.rolcanlogin FROM pg_roles r WHERE r.oid = c.relowner) AS owned
FROM pg_class c WHERE c.relnamespace = to_regnamespace('pgshepherd') AND c.relname IN ('shard', 'commit_record', 'audit')
"""

_FAULTS = {
    "plain": "is not an ordinary logged table",
    "keyed": "has no primary key",
    "open": "has row-level security",
    "quiet": "has triggers",
    "private": "is published: its rows would be false evidence elsewhere",
    "owned": f"is not owned by the NOLOGIN role {records.OWNER_ROLE}",
}


async def table_faults(connection: asyncpg.Connection) -> list[str]:
    """What is wrong with the tables; an empty list if they are as they must be."""
    rows = {row["relname"]: row for row in await fetch(connection, _TABLE_CHECK)}
    faults = [f"the table pgshepherd.{name} is missing" for name in ("shard", "commit_record", "audit") if name not in rows]
    faults.extend(
        f"pgshepherd.{name} {text}" for name, row in rows.items() for column, text in _FAULTS.items() if not row[column]
    )
    return faults


_COORDINATOR: Sequence[tuple[str, str]] = (("shard", "SELECT"), ("commit_record", "SELECT"), ("commit_record", "INSERT"))
_RECOVERY: Sequence[tuple[str, str]] = (
    *_COORDINATOR,
    ("shard", "INSERT"),
    ("shard", "UPDATE"),
    ("commit_record", "DELETE"),
    ("audit", "SELECT"),
    ("audit", "INSERT"),
    ("audit", "UPDATE"),
    ("audit", "DELETE"),
)


_PUBLIC_RIGHTS = """
SELECT COALESCE(bool_and(has_schema_privilege(oid, 'pgshepherd', 'USAGE')), true) AS usage,
       COALESCE(bool_and(has_column_privilege(oid, 'pgshepherd.shard', 'epoch', 'SELECT')), true) AS epoch,
       COALESCE(bool_and(has_column_privilege(oid, 'pgshepherd.commit_record', column_name, 'INSERT')), true) AS record
FROM pg_roles, unnest('{txn,shard,decision_shard,epoch,participants}'::text[]) column_name WHERE rolname = ANY ($1::text[])
"""
"""What every application role needs to write a commit record."""

_PUBLIC_GRANTS = {
    "usage": "GRANT USAGE ON SCHEMA pgshepherd TO PUBLIC;",
    "epoch": "GRANT SELECT (epoch) ON pgshepherd.shard TO PUBLIC;",
    "record": "GRANT INSERT (txn, shard, decision_shard, epoch, participants) ON pgshepherd.commit_record TO PUBLIC;",
}


async def missing_grants(connection: asyncpg.Connection, logins: Logins, version: int) -> list[str]:
    """What a DBA must run so that recovery and coordinator may do their work; we are logged in as recovery."""
    missing = await _missing_on_tables(connection, logins.recovery, _RECOVERY)
    if logins.coordinator != logins.recovery:
        missing.extend(await _missing_on_tables(connection, logins.coordinator, _COORDINATOR))
    mode, option = ("SET", " WITH SET TRUE, INHERIT FALSE") if version >= 160000 else ("MEMBER", "")
    for user in logins.users:
        if not await _role_exists(connection, user):
            missing.append(_create_role(user))
        elif not (await fetch(connection, "SELECT pg_has_role($1::name, $2)", user, mode))[0][0]:
            missing.append(f"GRANT {_quoted(user)} TO {_quoted(logins.recovery)}{option};")
    public = (await fetch(connection, _PUBLIC_RIGHTS, [*logins.users]))[0]
    missing.extend(sql for column, sql in _PUBLIC_GRANTS.items() if not public[column])
    return missing


async def _missing_on_tables(connection: asyncpg.Connection, role: str, privileges: Sequence[tuple[str, str]]) -> list[str]:
    if not await _role_exists(connection, role):
        return [_create_role(role)]
    missing = []
    sql = "SELECT has_table_privilege($1::name, to_regclass($2)::oid, $3)"
    for table, privilege in privileges:
        if not (await fetch(connection, sql, role, f"pgshepherd.{table}", privilege))[0][0]:
            missing.append(f"GRANT {privilege} ON pgshepherd.{table} TO {_quoted(role)};")
    return missing


async def _role_exists(connection: asyncpg.Connection, role: str) -> bool:
    found: bool = (await fetch(connection, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1::name)", role))[0][0]
    return found


def _create_role(role: str) -> str:
    return f"CREATE ROLE {_quoted(role)} LOGIN PASSWORD '...';"
