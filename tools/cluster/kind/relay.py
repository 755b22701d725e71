"""A port of this machine's loopback, led to the same port inside the engine's network namespace.

So a kubeconfig of kind works here as it is. It ends when the engine ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tools.cluster.kind.state import STATE, recall, remember
from tools.cluster.say import ClusterError

_CLONE_NEWNET = 0x40000000


def start_relay(name: str, port: int, pid: int) -> None:
    """A process that goes on after this one; `pid` is in the network namespace, and ends the relay when it ends."""
    listener = socket.create_server(("127.0.0.1", port))
    with (STATE / f"{name}.relay.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(listener.fileno()), str(pid)],
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=Path(__file__).parents[3],
        )
    listener.close()
    remember(f"{name}.relay", process.pid)


def stop_relay(name: str) -> None:
    """End the relay of a cluster, if there is one."""
    pid = recall(f"{name}.relay")
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
    for suffix in ("relay", "relay.log"):
        (STATE / f"{name}.{suffix}").unlink(missing_ok=True)


def _enter_network(pid: int) -> None:
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        raise ClusterError(f"cannot enter the network of process {pid}: {os.strerror(ctypes.get_errno())}")
    os.close(namespace)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(listener: socket.socket, pid: int) -> None:
    port = listener.getsockname()[1]

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(os.pidfd_open(pid), ended.set)
    _enter_network(pid)  # the listener stays in the network where it was made
    server = await asyncio.start_server(connect, sock=listener)
    await ended.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])))
