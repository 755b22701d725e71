"""Making one answer of several shards' answers: rows concatenated and counts summed, or one answer that all must agree with."""

from __future__ import annotations

from shardproxy.errors import SqlError
from shardproxy.protocol import messages as pg
from shardproxy.query.relay import Reply
from shardproxy.routing.plan import Assembly


def combined_tag(assembly: Assembly, replies: list[Reply]) -> str:
    """The tag for the client; raises SqlError if mirrored shards did not do the same."""
    tags = [reply.tags[-1] for reply in replies if reply.tags]
    if not tags:
        return ""
    if assembly is Assembly.MIRROR:
        if len(set(tags)) > 1:
            raise SqlError(
                "XX001",
                "the shards hold different rows of an omnisharded table",
                detail=f"the same statement answered {', '.join(repr(tag) for tag in sorted(set(tags)))}",
                hint="compare the table on all shards and mend it there; nothing was changed by this statement",
            )
        return tags[0]
    words = tags[0].split(" ")
    if not words[-1].isdigit():
        return tags[0]
    total = sum(int(tag.rsplit(" ", 1)[1]) for tag in tags)
    return " ".join([*words[:-1], str(total)])


def check_descriptions(replies: list[Reply]) -> None:
    """Concatenated rows must have one shape; raises SqlError if the shards' columns differ in name or type."""
    shapes = {pg.comparable_row_description(reply.description) for reply in replies if reply.description is not None}
    if len(shapes) > 1:
        raise SqlError(
            "XX001",
            "the shards answer with different columns",
            hint="the table differs between shards: bring it to the same definition everywhere",
        )
