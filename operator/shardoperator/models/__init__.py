"""The ShardedCluster as pydantic models: what users write, what was observed, and the conditions that they watch.

Invariant: the models accept exactly what the CRD accepts; no model holds an inline password.
"""
