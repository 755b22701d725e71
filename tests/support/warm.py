"""Proxies that start in milliseconds: forked from a process that has imported everything already.

They are processes like any other, to be killed and stopped at will; only the imports are not done anew for each of hundreds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Warm:
    """The process from which proxies are forked; they end with it."""

    process: asyncio.subprocess.Process

    @classmethod
    async def start(cls) -> Warm:
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(sys.executable, __file__, stdin=pipe, stdout=pipe))

    async def proxy(self, directory: Path) -> int:
        """Fork a proxy that reads its files there; its pid."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{directory}\n".encode())
        return int(await asyncio.wait_for(self.process.stdout.readline(), 30))

    async def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), 10)


async def kill(pid: int) -> None:
    """SIGKILL, and wait until it is gone."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop.add_reader(handle, gone.set)
    try:
        os.kill(pid, signal.SIGKILL)
        await asyncio.wait_for(gone.wait(), 10)
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def _main() -> None:
    from shardoperator.standalone.children import die_with_parent
    from shardproxy import server

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    die_with_parent()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            die_with_parent()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            directory = Path(line.strip())
            log = os.open(directory / "proxy.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            for number in (1, 2):
                os.dup2(log, number)
            os._exit(server.main(directory / "pgdog.toml", directory / "users.toml", directory / "pgshepherd.toml"))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
