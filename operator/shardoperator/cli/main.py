"""The verbs, and the functions behind them; heavy imports happen inside the verbs, so that --help is quick."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from shardoperator.cli import byhand, kubernetes, offline, recovery, running, shards, status
from shardoperator.cli.output import ExitCode, complain
from shardoperator.errors import ShardoperatorError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Runs a set of PostgreSQL servers as one sharded database, and keeps transactions over several shards atomic.",
)
app.command("demo")(running.demo)
app.command("run")(running.run)
app.command("proxy")(running.proxy)
app.command("operator")(kubernetes.operator)
app.command("status")(status.status)
app.command("check")(shards.check)
app.command("adopt")(shards.adopt)
app.command("recover")(recovery.recover)
recovery.transactions.command("commit")(byhand.commit)
recovery.transactions.command("rollback")(byhand.rollback)
recovery.transactions.command("acknowledge")(byhand.acknowledge)
app.add_typer(recovery.transactions, name="transactions")
app.command("render")(offline.render)
app.command("route")(offline.route)
app.command("hash")(offline.hash_value)


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="log what is done, to stderr")] = False,
) -> None:
    """Options before the verb."""
    level = logging.DEBUG if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def main() -> None:
    """The console script."""
    try:
        app()
    except ShardoperatorError as error:
        complain(str(error))
        sys.exit(ExitCode.FINDING)


if __name__ == "__main__":
    main()
