"""Requests to the Kubernetes API on plain objects: get, list, create, server-side apply, status, delete.

The typed models of the client library are not used: they would refuse an object for a field that we never look at.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import client, config

from shardoperator.errors import KubernetesError
from shardoperator.names import FIELD_MANAGER

REQUEST_TIMEOUT = 15.0
"""Seconds for one request and its answer."""
_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

_USUAL = Path("~/.kube/config").expanduser()

Resource = dict[str, Any]


def collection(api_version: str, plural: str, namespace: str | None = None) -> str:
    """The path of all objects of a kind, in a namespace or everywhere."""
    root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    return f"{root}/namespaces/{quote(namespace)}/{plural}" if namespace else f"{root}/{plural}"


@dataclass(frozen=True)
class Access:
    """How to reach the API, for another client in this process."""

    server: str
    token: str | None = field(repr=False)
    ca_path: str | None = None
    certificate_path: str | None = None
    private_key_path: str | None = None
    insecure: bool = False


class KubeApi:
    """One client, shared by everything in a process; close it at the end."""

    def __init__(self, configuration: client.Configuration, namespace: str = "default") -> None:
        self.client = client.ApiClient(configuration)
        self.namespace = namespace
        """Of the kubeconfig's context, or of the pod."""

    async def close(self) -> None:
        """End its connections."""
        await self.client.close()

    async def access(self) -> Access:
        """With a token that is fresh now."""
        configuration = self.client.configuration
        bearer = await configuration.get_api_key_with_prefix("BearerToken")
        token = bearer.split(" ", 1)[-1] if bearer else None
        files = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
        return Access(configuration.host, token, *files, insecure=not configuration.verify_ssl)

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> Resource:
        """The answer as plain data; raises KubernetesError."""
        url = path + (f"?{urlencode(query)}" if query else "")
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        try:
            serialized = await self.client.param_serialize(
                method, url, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            answer = await self.client.call_api(*serialized, _request_timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT))
            data = await answer.read()
        except (OSError, TimeoutError, aiohttp.ClientError, client.ApiException, config.ConfigException) as error:
            raise KubernetesError(
                f"{method} {path}: the Kubernetes API did not answer: {error or type(error).__name__}"
            ) from error
        if answer.status >= 400:
            raise KubernetesError(f"{method} {path}: {_refusal(answer.status, data)}", answer.status)
        parsed = json.loads(data) if data else {}
        return parsed if isinstance(parsed, dict) else {}

    async def get(self, path: str) -> Resource | None:
        """None if there is none."""
        try:
            return await self.request("GET", path)
        except KubernetesError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, path: str, *, selector: str = "") -> list[Resource]:
        """All objects of a collection."""
        query = {"labelSelector": selector} if selector else None
        items = (await self.request("GET", path, query=query)).get("items") or []
        return list(items)

    async def apply(self, path: str, body: Resource) -> Resource:
        """Server-side apply of the whole desired object; what another wrote into our fields is taken back."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self.request("PATCH", path, query=query, body=body, content_type="application/apply-patch+yaml")

    async def patch_status(self, path: str, status: Resource) -> Resource:
        """Merge into the status subresource; lists are replaced whole."""
        body = {"status": status}
        return await self.request("PATCH", f"{path}/status", body=body, content_type="application/merge-patch+json")

    async def delete(self, path: str, *, foreground: bool = False) -> None:
        """Gone is done: 404 is no error."""
        body = {"propagationPolicy": "Foreground" if foreground else "Background"}
        try:
            await self.request("DELETE", path, body=body)
        except KubernetesError as error:
            if error.status != 404:
                raise


def _refusal(status: int, data: bytes) -> str:
    try:
        message = json.loads(data).get("message", "")
    except (ValueError, AttributeError):
        message = ""
    return f"{status} {message or data[:200].decode(errors='replace')}"


async def connect(kubeconfig: Path | None = None, context: str | None = None) -> KubeApi:
    """From a kubeconfig (given, $KUBECONFIG, or the default one), or inside a pod from its ServiceAccount; raises KubernetesError."""
    configuration = client.Configuration()
    namespace = "default"
    in_cluster = kubeconfig is None and context is None and "KUBECONFIG" not in os.environ and in_pod()
    try:
        if in_cluster:
            config.load_incluster_config(client_configuration=configuration)
            namespace = own_namespace()
        else:
            path = _kubeconfig_path(kubeconfig)
            await config.load_kube_config(path, context=context, client_configuration=configuration, persist_config=False)
            namespace = _context_namespace(path, context)
    except (config.ConfigException, OSError, ValueError, KeyError, TypeError) as error:
        raise KubernetesError(
            f"no Kubernetes API: {error}: give --kubeconfig, set KUBECONFIG, or run inside a pod with a ServiceAccount"
        ) from error
    return KubeApi(configuration, namespace)


def _kubeconfig_path(given: Path | None) -> str:
    """The library says of a file that is missing only that it is empty."""
    path = str(given) if given is not None else os.environ.get("KUBECONFIG") or str(_USUAL)
    if os.pathsep not in path and not Path(path).exists():
        raise FileNotFoundError(f"there is no kubeconfig {path}")
    return path


def _context_namespace(path: str, context: str | None) -> str:
    contexts, active = config.list_kube_config_contexts(path)
    chosen = next((one for one in contexts if one["name"] == context), active)
    return str((chosen.get("context") or {}).get("namespace") or "default")


def in_pod() -> bool:
    """Whether a ServiceAccount's token is mounted here."""
    return _IN_CLUSTER.exists()


def own_namespace() -> str:
    """Of the pod that this runs in; `default` outside one."""
    path = _IN_CLUSTER.with_name("namespace")
    return path.read_text().strip() if path.exists() else "default"
