"""Tables for people, JSON for programs, and the exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import IntEnum, StrEnum
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from shardoperator.models.observation import PreparedTransaction
from shardoperator.models.status import transaction_json
from shardoperator.standalone.tables import transactions_table


class ExitCode(IntEnum):
    """What a caller can rely on."""

    DONE = 0
    FINDING = 1
    USAGE = 2
    UNREADABLE = 3


class Format(StrEnum):
    """-o"""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Format, typer.Option("--output", "-o", help="table or json")]

console = Console(highlight=False, soft_wrap=False)
errors = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Indented, in the order in which it was built."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def complain(message: str) -> None:
    """A line on stderr; never wrapped, so that what it says can be copied."""
    errors.print(message, markup=False, soft_wrap=True)


def fail(message: str, code: ExitCode) -> NoReturn:
    """Say why on stderr, and end."""
    complain(message)
    raise typer.Exit(code)


def print_transactions(transactions: Sequence[PreparedTransaction], output: Format, *, complete: bool) -> None:
    """A table, or JSON; `complete`: every shard was looked at."""
    if output is Format.JSON:
        print_json([transaction_json(one) for one in transactions])
    elif transactions:
        console.print(transactions_table(transactions))
    else:
        console.print("no prepared transactions" if complete else "no prepared transactions on the shards that answered")
