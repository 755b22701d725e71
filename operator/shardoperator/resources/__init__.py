"""Builders of what the operator makes for a cluster: pure functions of spec and identity.

Invariant: the proxy's files are rendered from the proxy's own models, so a file that it would refuse can't be rendered.
"""
