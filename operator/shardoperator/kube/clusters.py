"""ShardedClusters and what they name, as they stand in the API."""

from __future__ import annotations

import base64
import binascii

from shardoperator.errors import KubernetesError
from shardoperator.kube.api import KubeApi, Resource, collection
from shardoperator.models.manifest import Secrets
from shardoperator.models.spec import Spec
from shardoperator.names import API_VERSION, PLURAL


def cluster_path(namespace: str, name: str) -> str:
    """Of one ShardedCluster."""
    return f"{collection(API_VERSION, PLURAL, namespace)}/{name}"


def secret_names(spec: Spec) -> frozenset[str]:
    """Every Secret that a spec names."""
    names = {user.password_secret_ref.name for user in spec.users}
    for shard in spec.shards:
        refs = (shard.credentials_secret_ref, shard.coordinator_secret_ref, shard.installer_secret_ref)
        names.update(ref.name for ref in refs if ref is not None)
    return frozenset(names)


async def read_cluster(api: KubeApi, namespace: str, name: str) -> Resource:
    """Raises KubernetesError, 404 if there is none."""
    return await api.request("GET", cluster_path(namespace, name))


async def read_secrets(api: KubeApi, namespace: str, spec: Spec) -> Secrets:
    """The values of every Secret that the spec names; one that is missing is a fact for the plan, no error."""
    documents = {}
    for name in sorted(secret_names(spec)):
        found = await api.get(f"{collection('v1', 'secrets', namespace)}/{name}")
        if found is not None:
            documents[name] = _values(found, name)
    return Secrets(documents)


def _values(secret: Resource, name: str) -> dict[str, str]:
    values = {}
    for key, value in (secret.get("data") or {}).items():
        try:
            values[key] = base64.b64decode(value).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise KubernetesError(f"Secret {name}, key {key}: not a text in UTF-8") from None
    return values
