"""The SQL that a shard needs once: tables, and the rights of the two logins.

Invariant: it may be run any number of times; it gives no login more than docs/commit-protocol.md says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


_PRIVILEGES: Sequence[tuple[str, str]] = (
    ("shard", "SELECT"),
    ("shard", "INSERT"),
    ("shard", "UPDATE"),
    ("commit_record", "SELECT"),
    ("commit_record", "INSERT"),
    ("commit_record", "DELETE"),
    ("audit", "INSERT"),
)


async def missing_grants(connection: asyncpg.Connection, recovery: str, users: Iterable[str], version: int) -> list[str]:
    """GRANT statements that the recovery login lacks."""
    missing = []
    for table, privilege in _PRIVILEGES:
        rows = await fetch(connection, "SELECT has_table_privilege(to_regclass($1)::oid, $2)", f"pgshepherd.{table}", privilege)
        if not rows[0][0]:
            missing.append(f"GRANT {privilege} ON pgshepherd.{table} TO {_quoted(recovery)};")
    mode, option = ("SET", " WITH SET TRUE, INHERIT FALSE") if version >= 160000 else ("MEMBER", "")
    for user in users:
        rows = await fetch(
            connection,
            "SELECT r.oid IS NOT NULL, CASE WHEN r.oid IS NULL THEN false ELSE pg_has_role(r.oid, $2) END "
            "FROM (SELECT (SELECT oid FROM pg_roles WHERE rolname = $1) AS oid) r",
            user,
            mode,
        )
        if not rows[0][0]:
            missing.append(f"CREATE ROLE {_quoted(user)} LOGIN PASSWORD '...';  -- the application's role is missing")
        elif not rows[0][1]:
            missing.append(f"GRANT {_quoted(user)} TO {_quoted(recovery)}{option};")
    return missing
