"""The pure core: spec and observations in, a plan with conditions out.

Invariant: no I/O, no clock; "could not look" gives Unknown, never True.
"""
