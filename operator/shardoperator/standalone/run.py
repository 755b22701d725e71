"""`pgshepherd run`: the operator on one machine, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live

from shardoperator.controller.http import Answer, json_answer, serve
from shardoperator.controller.loop import ClusterController
from shardoperator.models.conditions import Condition
from shardoperator.models.manifest import Manifest
from shardoperator.models.status import Status
from shardoperator.resources.config import Listen
from shardoperator.standalone.platform import StandalonePlatform
from shardoperator.standalone.tables import status_view


@dataclass(frozen=True)
class RunOptions:
    """Where things are."""

    state: Path
    listen: Listen
    http_host: str
    http_port: int


class Display:
    """A live table on a terminal; elsewhere one line for each transition."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: dict[str, tuple[str, str, str]] = {}
        self.live: Live | None = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def show(self, status: Status) -> None:
        """After each visit that changed something."""
        if self.live is not None:
            self.live.update(status_view(status), refresh=True)
            return
        for condition in status.conditions:
            now = (condition.status, condition.reason, condition.message)
            if self._seen.get(condition.type, ("", "", ""))[:2] != now[:2]:
                self._console.print(_line(condition), markup=False, soft_wrap=True)
            self._seen[condition.type] = now


def _line(condition: Condition) -> str:
    text = f"{condition.last_transition_time} {condition.type}={condition.status} {condition.reason}"
    return f"{text}: {condition.message}" if condition.message else text


async def run_cluster(manifest: Manifest, options: RunOptions) -> int:
    """The exit code: 0 after a signal, 1 if something on this machine does not work."""
    console = Console(highlight=False)
    display = Display(console)
    platform = StandalonePlatform(manifest, options.state, options.listen, display.show)
    controller = ClusterController(platform, memory=platform.recall())
    try:
        await asyncio.to_thread(options.state.mkdir, parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        return _complain(f"can't write to {options.state}: {error.strerror}: choose another by --state")
    try:
        server = await serve(options.http_host, options.http_port, routes(controller))
    except OSError as error:
        where = f"{options.http_host}:{options.http_port}"
        return _complain(f"can't listen on {where}: {error.strerror}: choose another by --http")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    loop = asyncio.create_task(controller.run(), name="controller")
    waiting = asyncio.create_task(stop.wait(), name="signals")
    try:
        with display.live or nullcontext():
            await asyncio.wait({loop, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (loop, waiting):
            task.cancel()
        (ended, _) = await asyncio.gather(loop, waiting, return_exceptions=True)
        server.close()
        await platform.stop()
    if isinstance(ended, Exception):
        raise ended
    return 0


def _complain(message: str) -> int:
    Console(stderr=True, highlight=False).print(message, markup=False, soft_wrap=True)
    return 1


def routes(controller: ClusterController) -> dict[str, Callable[[], Answer]]:
    """What the HTTP port answers."""

    def status() -> Answer:
        if controller.status is None:
            return json_answer(503, {"error": "the first visit is not over"})
        return json_answer(200, controller.status.to_json())

    def metrics() -> Answer:
        return 200, "text/plain; version=0.0.4; charset=utf-8", controller.metrics.text()

    return {"/status": status, "/metrics": metrics, "/livez": lambda: (200, "text/plain", b"ok\n")}
