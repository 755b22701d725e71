"""From spec and Secrets to logins: which Secrets are missing is a fact like any other."""

from __future__ import annotations

from dataclasses import dataclass

from shardoperator.models.manifest import Secrets
from shardoperator.models.spec import LoginRef, ShardedCluster
from shardoperator.resources.config import Logins as ProxyLogins
from shardoperator.shards.connect import ShardTarget
from shardoperator.shards.install import Logins


@dataclass(frozen=True)
class Targets:
    """Everything that can be logged in to."""

    recovery: tuple[ShardTarget | None, ...]
    """By position; None where the Secret is missing."""
    installers: tuple[ShardTarget | None, ...]
    logins: tuple[Logins | None, ...]
    proxy: ProxyLogins | None
    """None while a Secret that the proxy needs is missing."""
    missing: tuple[str, ...]

    @property
    def reachable(self) -> tuple[ShardTarget, ...]:
        """Those that there is a login for."""
        return tuple(target for target in self.recovery if target is not None)


def targets(cluster: ShardedCluster, secrets: Secrets) -> Targets:
    """Read every Secret that the spec names."""
    spec = cluster.spec
    missing: list[str] = []

    def login(ref: LoginRef) -> tuple[str, str] | None:
        found = secrets.login(ref)
        if found is None:
            missing.append(f"Secret {ref.name} with the keys {ref.username_key} and {ref.password_key}")
        return found

    recovery: list[ShardTarget | None] = []
    installers: list[ShardTarget | None] = []
    logins: list[Logins | None] = []
    coordinators: list[tuple[str, str] | None] = []
    names = tuple(user.name for user in spec.users)
    for position, shard in enumerate(spec.shards):
        place = (shard.name, spec.number(position), shard.host, shard.port, shard.database)
        one = login(shard.credentials_secret_ref)
        coordinator = login(shard.coordinator_secret_ref) if shard.coordinator_secret_ref is not None else one
        installer = login(shard.installer_secret_ref) if shard.installer_secret_ref is not None else None
        recovery.append(ShardTarget(*place, *one) if one is not None else None)
        installers.append(ShardTarget(*place, *installer) if installer is not None else None)
        logins.append(Logins(one[0], coordinator[0], names) if one is not None and coordinator is not None else None)
        coordinators.append(coordinator)
    users = {user.name: secrets.password(user.password_secret_ref) for user in spec.users}
    missing.extend(
        f"Secret {user.password_secret_ref.name} with the key {user.password_secret_ref.key}"
        for user in spec.users
        if users[user.name] is None
    )
    proxy = None
    if not missing:
        proxy = ProxyLogins(
            [one for one in coordinators if one is not None],
            {name: password for name, password in users.items() if password is not None},
        )
    return Targets(tuple(recovery), tuple(installers), tuple(logins), proxy, tuple(dict.fromkeys(missing)))
