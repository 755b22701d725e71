"""The commit protocol and its recovery as sans-I/O state machines: replies in, commands out.

Invariant: nothing here reads a clock, a socket or a random source, so the engine that ships is the engine that the model
checker drives.  docs/commit-protocol.md is the contract; the rules marked (!) there are named where they are kept.
"""
