"""One look at one shard with its recovery login: facts for the reconcile core.  Changes nothing."""

from __future__ import annotations

import asyncpg

from shardoperator.errors import ShardError
from shardoperator.models.observation import Identity, Problem, ShardObservation
from shardoperator.shards.connect import ShardTarget, close, connect, fetch
from shardoperator.shards.install import Logins, install_sql, missing_grants, table_faults
from shardproxy.config.models import Standbys
from shardproxy.twophase import records

_FACTS = """
SELECT pg_is_in_recovery() AS standby, current_setting('server_version_num')::int AS version,
       (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
       (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS database_oid,
       current_setting('max_prepared_transactions')::int AS max_prepared,
       (SELECT pending_restart FROM pg_settings WHERE name = 'max_prepared_transactions') AS pending_restart,
       current_setting('synchronous_standby_names') <> '' AS named,
       (SELECT count(*) FROM pg_stat_replication r WHERE NOT EXISTS
          (SELECT FROM pg_replication_slots s WHERE s.slot_type = 'logical' AND s.active_pid = r.pid)) AS followers,
       (SELECT bool_or(r.sync_state IN ('sync', 'quorum')) FROM pg_stat_replication r WHERE NOT EXISTS
          (SELECT FROM pg_replication_slots s WHERE s.slot_type = 'logical' AND s.active_pid = r.pid)) AS synchronous,
       EXISTS (SELECT FROM pg_replication_slots WHERE slot_type = 'physical') AS slots,
       to_regnamespace('pgshepherd') IS NOT NULL AS has_schema,
       COALESCE(has_schema_privilege(to_regnamespace('pgshepherd')::oid, 'USAGE'), false) AS may_look
"""


async def probe(target: ShardTarget, logins: Logins) -> ShardObservation:
    """Never raises for a shard that can't be used: that is what it reports."""
    try:
        connection = await connect(target, application="operator")
    except ShardError as error:
        return _unreachable(target, error.reason, str(error))
    try:
        return await _look(connection, target, logins)
    except ShardError as error:
        return _unreachable(target, error.reason, f"{target.where}: {error}")
    except asyncpg.PostgresError as error:
        return _unreachable(target, "ConnectionRefused", f"{target.where}: {error}")
    finally:
        close(connection)


def _unreachable(target: ShardTarget, reason: str, message: str) -> ShardObservation:
    return ShardObservation(target.name, target.number, reachable=False, reason=reason, message=message)


async def _look(connection: asyncpg.Connection, target: ShardTarget, logins: Logins) -> ShardObservation:
    facts = (await fetch(connection, _FACTS))[0]
    if facts["standby"]:
        raise ShardError(
            "ReadOnlyStandby", "a standby answers in the place of its primary: point spec.shards[].host at the primary"
        )
    timeline = int((await fetch(connection, f"SELECT {records.TIMELINE}"))[0][0], 16)
    installed, identity, problems = await _installation(connection, target, logins, facts)
    return ShardObservation(
        target.name,
        target.number,
        reachable=True,
        version=facts["version"],
        system_identifier=facts["system_identifier"],
        database_oid=facts["database_oid"],
        timeline=timeline,
        max_prepared_transactions=facts["max_prepared"],
        pending_restart=facts["pending_restart"],
        standbys=standbys(facts["named"], facts["followers"], facts["synchronous"], facts["slots"]),
        installed=installed,
        identity=identity,
        problems=tuple(problems),
    )


def standbys(named: bool, followers: int, synchronous: bool | None, slots: bool) -> Standbys:
    """`synchronous` is None where the login may not see it: then a name in synchronous_standby_names, for which every commit waits,
    speaks for the standby that is there.  A slot without its standby stands for one that will come back.
    """
    if followers and (synchronous or (synchronous is None and named)):
        return "synchronous"
    return "asynchronous" if followers or slots else "none"


async def _installation(
    connection: asyncpg.Connection, target: ShardTarget, logins: Logins, facts: asyncpg.Record
) -> tuple[bool | None, Identity | None, list[Problem]]:
    """Whether the tables are there (None: we may not look), the row of the shard, and what is wrong."""
    if facts["has_schema"] and not facts["may_look"]:
        sql = "GRANT USAGE ON SCHEMA pgshepherd TO PUBLIC;"
        return None, None, [Problem("MissingPrivilege", f"{target.where}: a right is missing: {sql}", sql)]
    installed = (await fetch(connection, "SELECT to_regclass('pgshepherd.shard') IS NOT NULL"))[0][0]
    if not installed:
        remedy = "name an installerSecretRef, or run what `pgshepherd check --sql` prints"
        message = f"{target.where}: the schema pgshepherd is not there: {remedy}"
        return False, None, [Problem("NotInstalled", message, install_sql(logins, facts["version"]))]
    problems = [Problem("NotInstalled", f"{target.where}: {fault}") for fault in await table_faults(connection)]
    grants = await missing_grants(connection, logins, facts["version"])
    problems.extend(Problem("MissingPrivilege", f"{target.where}: a right is missing: {sql}", sql) for sql in grants)
    return True, await _identity(connection), problems


async def _identity(connection: asyncpg.Connection) -> Identity | None:
    try:
        rows = await fetch(
            connection, "SELECT cluster, name, number, members, system_identifier, epoch, retired FROM pgshepherd.shard"
        )
    except asyncpg.InsufficientPrivilegeError:
        return None
    if not rows:
        return None
    row = rows[0]
    return Identity(
        row["cluster"], row["name"], row["number"], tuple(row["members"]), row["system_identifier"], row["epoch"], row["retired"]
    )
