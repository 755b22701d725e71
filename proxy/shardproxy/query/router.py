"""From text to statements: the analyzer with a cache, and the schema that it needs, read from the shards.

Invariant: a relation that is not in the schema is looked for once more on a shard before anything is decided about it; what then
is still unknown does not exist.  A transaction that has run DDL has a schema of its own until it commits.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from shardproxy.backend.connection import ServerConnection
from shardproxy.errors import LinkLost, SqlError
from shardproxy.query.state import SessionState
from shardproxy.query.transaction import Transaction
from shardproxy.routing.analyze import analyze
from shardproxy.routing.plan import Kind, Statement
from shardproxy.routing.schema import SCHEMA_QUERIES, RoutingContext, Schema

CACHE_SIZE = 4096
"""Texts whose analysis is kept; a parse costs some 25 microseconds and much more with its analysis."""

CACHED_TEXT = 16384
"""Characters above which a text is not kept."""


class Router:
    """One for each user: what a name means depends on the search path."""

    def __init__(self, context: RoutingContext) -> None:
        self.context = context
        self.loaded = False
        self._cache: dict[str, tuple[Statement, ...]] = {}
        self._lock = asyncio.Lock()

    async def statements(self, sql: str, state: SessionState) -> tuple[Statement, ...]:
        """Raises SqlError: 42601, 0A000, 42P01, or why the schema could not be read."""
        if state.transaction is not None and state.transaction.has_ddl:
            return await self._in_transaction(sql, state, state.transaction)
        if not self.loaded:
            await self._load(state)
        found = self._cache.get(sql)
        if found is None:
            found = analyze(sql, self.context)
            unknown = frozenset().union(*(statement.unknown_relations for statement in found))
            if unknown:
                await self._load(state)
                found = analyze(sql, self.context)
                _check_known(found)
            if len(sql) <= CACHED_TEXT:
                if len(self._cache) >= CACHE_SIZE:
                    self._cache.pop(next(iter(self._cache)))
                self._cache[sql] = found
        return found

    async def _in_transaction(self, sql: str, state: SessionState, transaction: Transaction) -> tuple[Statement, ...]:
        if transaction.schema is None and not transaction.failed:
            transaction.schema = await self._read(state)
        schema = transaction.schema or self.context.schema
        found = analyze(sql, replace(self.context, schema=schema))
        _check_known(found)
        return found

    def changed(self, state: SessionState | None = None) -> None:
        """DDL was run, and by `state` not yet committed: read the schema again before the next statement."""
        if state is not None and state.transaction is not None:
            state.transaction.has_ddl = True
            state.transaction.schema = None
            return
        self.loaded = False
        self._cache.clear()

    async def _load(self, state: SessionState) -> None:
        """On a shard of the session's open transaction, which sees its own DDL, or on its home shard."""
        async with self._lock:
            schema = await self._read(state)
            self.context = replace(self.context, schema=schema)
            self._cache.clear()
            self.loaded = True

    async def _read(self, state: SessionState) -> Schema:
        transaction = state.transaction
        if transaction is not None and transaction.joined and not transaction.failed:
            connection = next(iter(transaction.joined.values())).link.connection
            if connection.transaction_status == "T":
                return await _query_schema(connection, state.timeouts.prepare)
        pool = state.cluster.pool(state.user.credentials, state.home, state.user.pool_size)
        connection = await pool.acquire(state.startup)
        try:
            return await _query_schema(connection, state.timeouts.prepare)
        finally:
            pool.release(connection)


async def _query_schema(connection: ServerConnection, timeout: float) -> Schema:
    results = []
    for sql in SCHEMA_QUERIES:
        try:
            result = await connection.query(sql, timeout)
        except LinkLost as error:
            raise SqlError("08006", f"the schema could not be read: {error}") from error
        if result.error is not None:
            raise result.error
        results.append(result.rows)
    return Schema.from_results(results)


def _check_known(statements: tuple[Statement, ...]) -> None:
    for statement in statements:
        if statement.unknown_relations and statement.kind is not Kind.DDL:
            name = sorted(statement.unknown_relations)[0]
            raise SqlError("42P01", f'relation "{name}" does not exist')
