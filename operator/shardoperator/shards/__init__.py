"""Everything that talks to a shard: probes, installation, adoption, scans, and the recovery engine's driver.

Invariant: the only importer of asyncpg; every wait has a limit, and a link that outlasts it is dropped, never cancelled.
"""
