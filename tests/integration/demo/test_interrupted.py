"""`pgshepherd demo`, interrupted at several moments: no process, port or folder stays behind.  That it ends well: `make demo`."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import scratch_directory
from commands import COMMAND, LIMIT, gone, processes_with
from shardoperator.standalone.children import die_with_parent

Moment = Callable[[Path, str], bool]
"""Of the folder in which it works, and what it has said."""


def file(pattern: str) -> Moment:
    return lambda folder, _: any(folder.glob(pattern))


def said(text: str) -> Moment:
    return lambda _, output: text in output


MOMENTS: list[tuple[str, Moment, list[signal.Signals]]] = [
    ("copying", file("postgres"), [signal.SIGINT]),
    ("initdb", file("pg-*/data"), [signal.SIGINT]),
    ("initdb, twice", file("pg-*/data/base"), [signal.SIGINT, signal.SIGINT, signal.SIGTERM]),
    ("starting", file("pg-*/data/postmaster.pid"), [signal.SIGTERM]),
    ("restarting", said("TwoPhaseReady is False, for the reason Disabled"), [signal.SIGINT]),
    ("proxy starting", file("state/proxy.log"), [signal.SIGINT]),
    ("ready", said("Ready is True"), [signal.SIGTERM]),
    ("money moves", said("one statement changed"), [signal.SIGINT]),
    ("orphan", said("the client was told nothing"), [signal.SIGINT]),
    ("orphan, terminal closed", said("the client was told nothing"), [signal.SIGHUP]),
]


def ports_of(folder: Path) -> set[int]:
    """On which its servers listen."""
    lines = []
    for pid in processes_with(str(folder)):
        try:
            lines.append(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return {int(port) for line in lines for port in re.findall(r"\0port=(\d+)\0", line)}


async def is_listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.mark.parametrize(("moment", "signals"), [case[1:] for case in MOMENTS], ids=[case[0] for case in MOMENTS])
async def test_nothing_stays_behind(moment: Moment, signals: list[signal.Signals]) -> None:
    directory = scratch_directory()
    output = directory / "output"
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "demo", stdin=asyncio.subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            env={**os.environ, "TMPDIR": str(directory)}, preexec_fn=die_with_parent,
        )  # fmt: skip

    def folder() -> Path:
        return next(directory.glob("pgshepherd-demo-*"), directory / "none")

    try:
        async with asyncio.timeout(LIMIT):
            while not moment(folder(), output.read_text()):
                assert process.returncode is None, output.read_text()
                await asyncio.sleep(0.01)
        ports = ports_of(folder())
        for number in signals:
            os.killpg(process.pid, number)
            await asyncio.sleep(0.01)
        code = await asyncio.wait_for(process.wait(), LIMIT)
        told = output.read_text()
        assert code == 128 + signals[0], told
        assert "Traceback" not in told, told
        assert "interrupted: cleaning up" in told
        assert [path.name for path in directory.iterdir()] == ["output"]
        await gone(lambda: processes_with(str(directory)))
        assert not [port for port in ports if await is_listening(port)]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        shutil.rmtree(directory, ignore_errors=True)
