"""Status and prepared transactions as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from shardoperator.models.conditions import Condition
from shardoperator.models.observation import PreparedTransaction
from shardoperator.models.status import Status

_COLOURS = {"True": "green", "False": "red", "Unknown": "yellow"}
_GOOD_WHEN_FALSE = frozenset({"Progressing", "Degraded", "Stalled", "Paused", "Deleting"})


def conditions_table(conditions: Sequence[Condition], title: str = "") -> Table:
    """As kubectl describe shows them."""
    table = Table(title=title, title_justify="left", expand=False)
    for name in ("CONDITION", "STATUS", "REASON", "MESSAGE"):
        table.add_column(name, overflow="fold")
    for one in conditions:
        flipped = {"True": "yellow", "False": "green"} if one.type in _GOOD_WHEN_FALSE else {}
        colour = flipped.get(one.status, _COLOURS[one.status])
        table.add_row(one.type, f"[{colour}]{one.status}[/]", one.reason, escape(one.message))
    return table


def transactions_table(transactions: Sequence[PreparedTransaction], title: str = "") -> Table:
    """Oldest first."""
    table = Table(title=title, title_justify="left", expand=False)
    for name in ("SHARD", "CLASS", "AGE", "GID", "OWNER", "BLOCKS", "WHY"):
        table.add_column(name, overflow="fold")
    for one in sorted(transactions, key=lambda each: -each.age):
        cells = (str(one.shard), one.transaction_class.value, f"{one.age:.1f} s", escape(one.gid), escape(one.owner))
        table.add_row(*cells, escape("\n".join(one.blocks)) or "-", escape(one.reason))
    return table


def stuck_table(transactions: Sequence[Mapping[str, Any]]) -> Table:
    """Those that a status holds."""
    table = Table(title="prepared, and not resolved", title_justify="left", expand=False)
    for name in ("SHARD", "CLASS", "SINCE", "GID", "BLOCKS", "WHY"):
        table.add_column(name, overflow="fold")
    for one in transactions:
        cells = (str(one.get("shard")), str(one.get("class")), str(one.get("preparedAt")), str(one.get("gid")))
        blocks = "\n".join(one.get("blocks") or []) or "-"
        table.add_row(*map(escape, (*cells, blocks, str(one.get("reason", "")))))
    return table


def status_view(status: Status) -> RenderableType:
    """Everything of one cluster."""
    title = f"{status.namespace}/{status.name}, cluster {status.cluster_id or 'not adopted yet'}"
    parts: list[RenderableType] = [conditions_table(status.conditions, title)]
    if status.report is not None and status.report.transactions:
        parts.append(transactions_table(status.report.transactions, "prepared transactions"))
    return Group(*parts)
