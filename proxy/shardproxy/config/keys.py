"""PgDog's keys by section: what pgdog.toml and users.toml may hold, supported here or not.

PgDog refuses unknown keys, so a rendered file holds none but these; we are laxer and only warn.
"""

from __future__ import annotations

from collections.abc import Mapping

PGDOG_SECTIONS: Mapping[str, frozenset[str]] = {
    "general": frozenset(
        """host port workers default_pool_size min_pool_size pooler_mode checkout_timeout connect_timeout connect_attempts
        connect_attempt_delay idle_timeout server_lifetime server_lifetime_jitter query_timeout client_idle_timeout
        client_idle_in_transaction_timeout client_login_timeout rollback_timeout connection_recovery client_connection_recovery
        regex_parser_limit prepared_statements prepared_statements_limit prepared_statements_ttl prepared_statements_ttl_jitter
        pub_sub_channel_size auth_type passthrough_auth tls_certificate tls_private_key tls_client_required tls_client_ca_certificate
        tls_verify tls_server_ca_certificate tls_server_certificate tls_server_private_key sharding_lookup_cache_size
        sharding_lookup_timeout omnisharded_sticky system_catalogs cross_shard_disabled unique_id_function unique_id_min load_schema
        canonicalize_type_information reload_schema_on_ddl expanded_explain read_write_strategy read_write_split
        load_balancing_strategy healthcheck_interval idle_healthcheck_interval idle_healthcheck_delay healthcheck_timeout ban_timeout
        healthcheck_port lsn_check_delay lsn_check_interval ban_replica_lag ban_replica_lag_bytes shutdown_timeout
        shutdown_termination_timeout broadcast_address broadcast_port openmetrics_host openmetrics_port openmetrics_namespace
        two_phase_commit two_phase_commit_auto two_phase_commit_wal_dir two_phase_commit_wal_fsync_interval
        two_phase_commit_wal_segment_size two_phase_commit_wal_checkpoint_interval query_parser query_parser_engine query_cache_limit
        query_size_limit query_size_limit_action dry_run stats_period log_format log_level log_connections log_disconnections dns_ttl
        mirror_queue mirror_exposure require_healthcheck_on_discovery""".split()
    ),
    "databases": frozenset(
        """name host port shard role database_name user password pool_size min_pool_size pool_size_primary pool_size_replica
        min_pool_size_primary min_pool_size_replica pooler_mode statement_timeout lock_timeout idle_timeout server_lifetime
        server_lifetime_jitter read_only lb_weight resharding_only""".split()
    ),
    "sharded_tables": frozenset(
        """database name schema column data_type hasher primary centroids centroids_path centroid_probes lookup_query lookup_result
        mapping""".split()
    ),
    "sharded_mappings": frozenset("database column kind shard table schema values start end".split()),
    "sharded_schemas": frozenset("database name shard all".split()),
    "omnisharded_tables": frozenset("database tables sticky".split()),
    "rewrite": frozenset("enabled shard_key split_inserts primary_key".split()),
    "admin": frozenset("name user password".split()),
    "tcp": frozenset("keepalive time interval retries user_timeout congestion_control".split()),
    "memory": frozenset("net_buffer message_buffer stack_size".split()),
    "query_parsers": frozenset("database level engine".split()),
    "mirroring": frozenset("source_db destination_db queue_length exposure level".split()),
    "plugins": frozenset("name config".split()),
    "multi_tenant": frozenset({"column"}),
    "replica_lag": frozenset(),
    "replication": frozenset({"pg_dump_path"}),
    "otel": frozenset("endpoint headers push_interval namespace".split()),
    "vault": frozenset(),
}
"""Sections and keys of pgdog.toml."""

USER_KEYS = frozenset(
    """name database databases all_databases password passwords password_hash server_user server_password server_auth
    server_iam_region identity tls_client_certificate_required pool_size min_pool_size pool_size_primary pool_size_replica
    min_pool_size_primary min_pool_size_replica pooler_mode statement_timeout lock_timeout idle_timeout server_lifetime
    server_lifetime_jitter read_only schema_admin cross_shard_disabled two_phase_commit two_phase_commit_auto replication_mode
    replication_sharding""".split()
)
"""Keys of [[users]] in users.toml."""
