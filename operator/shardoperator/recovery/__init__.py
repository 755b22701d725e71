"""Finds prepared transactions on every shard, tells ours from foreign, and resolves ours by the evidence in the shards.

Invariant: it acts only through the commit protocol's engine; it may run in any number of places at any time.
"""
