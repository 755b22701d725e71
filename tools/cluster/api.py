"""A Kubernetes API on loopback: etcd, kube-apiserver and kube-controller-manager. By hand: python -m tools.cluster.api

There is no kubelet and no scheduler: Deployments make pods, and the pods stay Pending. Invariant: the servers end with the
process that started them, whatever ends that, and their folder is removed.
"""

from __future__ import annotations

import base64
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from shardoperator.standalone.children import die_with_parent
from tools.cluster.binaries import obtain
from tools.cluster.say import ClusterError, say, tail

START_TIMEOUT = 120.0
"""Seconds until the API must answer."""

_ADMIN = {"admin": "system:masters"}
_SWEEP = 'cat; rm -rf "$0" 2>/dev/null || { sleep 1; rm -rf "$0"; }'  # etcd may still write while it is being killed
_KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: test, cluster: {{server: "{server}", certificate-authority-data: {authority}}}}}]
users: [{{name: {user}, user: {{token: "{token}"}}}}]
contexts: [{{name: test, context: {{cluster: test, user: {user}}}}}]
current-context: test
"""


def _free_port() -> int:
    """Below the range that the kernel gives to clients: etcd and the API take theirs seconds later, when one may be gone."""
    while True:
        port = 20000 + secrets.randbelow(12000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@dataclass
class ApiServer:
    """A context manager; `users` maps the names of more users to their one group each (no rights but what RBAC gives them)."""

    binaries: Path
    users: Mapping[str, str] = field(default_factory=dict)
    directory: Path = field(default=Path(), init=False)
    port: int = field(default_factory=_free_port, init=False)
    _tokens: dict[str, str] = field(default_factory=dict, repr=False)
    _servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _sweeper: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of the API."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def kubectl(self) -> Path:
        """A kubectl of exactly this version."""
        return self.binaries / "kubectl"

    def kubeconfig(self, user: str = "admin", token: str = "") -> Path:
        """A kubeconfig file for a user given at the start, or for any token, such as one of `kubectl create token`."""
        authority = base64.b64encode((self.directory / "apiserver.crt").read_bytes()).decode()
        path = self.directory / f"{user}.kubeconfig"
        text = _KUBECONFIG.format(server=self.url, authority=authority, user=user, token=token or self._tokens[user])
        path.write_text(text)
        return path

    def __enter__(self) -> ApiServer:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGKILL, as nothing is to be kept: at SIGTERM these servers take up to half a minute."""
        for server in self._servers.values():
            server.kill()
        for server in self._servers.values():
            server.wait()
        if self._sweeper is not None and self._sweeper.stdin is not None:
            self._sweeper.stdin.close()
            self._sweeper.wait()

    def _start(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="pgshepherd-kube-"))
        # It waits until its pipe is closed, as it is when we end, even by SIGKILL; a session of its own keeps Ctrl-C from it.
        sweep = ["sh", "-c", _SWEEP, str(self.directory)]
        self._sweeper = subprocess.Popen(sweep, stdin=subprocess.PIPE, cwd="/", start_new_session=True)
        client = _free_port()
        self._tokens = {user: secrets.token_hex(16) for user in (*_ADMIN, *self.users)}
        lines = [f'{self._tokens[user]},{user},{user},"{group}"\n' for user, group in {**self.users, **_ADMIN}.items()]
        (self.directory / "tokens.csv").write_text("".join(lines))
        self._run("etcd", _etcd_arguments(self.directory, client))
        self._run("kube-apiserver", _api_arguments(self.directory, client, self.port))
        self._wait_ready()
        self._run("kube-controller-manager", _manager_arguments(self.directory, self.kubeconfig()))

    def _run(self, name: str, arguments: Sequence[str]) -> None:
        with (self.directory / f"{name}.log").open("wb") as log:
            self._servers[name] = subprocess.Popen(
                [str(self.binaries / name), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while (problem := self._problem()) and time.monotonic() < deadline:
            for name, server in self._servers.items():
                if server.poll() is not None:
                    raise ClusterError(f"{name} ended at once: {tail((self.directory / f'{name}.log').read_text())}")
            time.sleep(0.05)
        if problem:
            raise ClusterError(f"kube-apiserver is not ready after {START_TIMEOUT:.0f} s: {problem}")

    def _problem(self) -> str:
        """Why the API does not answer yet; nothing once it does."""
        headers = {"Authorization": f"Bearer {self._tokens['admin']}"}
        try:
            trust = ssl.create_default_context(cafile=self.directory / "apiserver.crt")
            request = urllib.request.Request(f"{self.url}/readyz", headers=headers)
            urllib.request.urlopen(request, context=trust, timeout=5).close()
        except OSError as error:  # also no certificate yet, and an answer that is not 200
            return str(error)
        return ""


def _etcd_arguments(directory: Path, client: int) -> list[str]:
    url = f"http://127.0.0.1:{client}"
    return [
        f"--data-dir={directory}/etcd",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        "--listen-peer-urls=http://127.0.0.1:0",  # there are no peers
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _api_arguments(directory: Path, etcd: int, port: int) -> list[str]:
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        f"--cert-dir={directory}",  # it writes its self-signed apiserver.crt and .key there
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--token-auth-file={directory}/tokens.csv",
        "--authorization-mode=RBAC",
        "--advertise-address=127.0.0.1",  # without a default route it ends otherwise
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={directory}/apiserver.key",
        f"--service-account-signing-key-file={directory}/apiserver.key",
    ]


def _manager_arguments(directory: Path, kubeconfig: Path) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
        f"--service-account-private-key-file={directory}/apiserver.key",
        f"--root-ca-file={directory}/apiserver.crt",
        "--use-service-account-credentials",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]


def main() -> None:
    """Print the kubeconfig's path, and serve until a signal comes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
    binaries = obtain()
    say("starting a Kubernetes API on loopback (a few seconds)")
    with ApiServer(binaries) as server:
        print(server.kubeconfig(), flush=True)
        say(f"kubectl of this version: {server.kubectl}; Ctrl-C ends it and leaves nothing behind")
        signal.pause()


if __name__ == "__main__":
    try:
        main()
    except ClusterError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(0)
