"""A client's first packets: what it asks for, who it is, and what it is told of the server.

Invariant: nobody gets past here without a proven password; what a client asks for at startup is passed to the servers as
startup settings, or refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shardproxy.errors import ProtocolViolation, Refused, SqlError
from shardproxy.protocol import messages as pg
from shardproxy.protocol.wire import MAX_FRAME, Wire
from shardproxy.routing.commands import SETTABLE


@dataclass(frozen=True)
class Hello:
    """What a client asked for; `cancel` = it only wants to cancel another's query."""

    user: str = ""
    database: str = ""
    application_name: str = ""
    settings: Mapping[str, str] | None = None
    cancel: tuple[int, int] | None = None


async def read_hello(wire: Wire, timeout: float) -> Hello:
    """The first packets; raises SqlError for a request that can't be met, ProtocolViolation for bytes that are none."""
    for _ in range(3):
        code, parameters, key = pg.parse_startup(await wire.read_startup(timeout))
        if code in (pg.SSL_REQUEST, pg.GSS_REQUEST):
            wire.write(b"N")
            continue
        if key is not None:
            return Hello(cancel=key)
        if code >> 16 != 3:
            raise SqlError(
                "0A000", f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}: 3.0 is spoken", severity="FATAL"
            )
        options = [name for name in parameters if name.startswith("_pq_.")]
        if code != pg.PROTOCOL_3_0 or options:
            wire.write(pg.negotiate_version(options))
        return _hello({name: value for name, value in parameters.items() if name not in options})
    raise ProtocolViolation("more encryption requests than there are kinds of encryption")


def _hello(parameters: Mapping[str, str]) -> Hello:
    user = parameters.get("user", "")
    if not user:
        raise SqlError("28000", "no PostgreSQL user name specified in startup packet", severity="FATAL")
    return Hello(
        user=user,
        database=parameters.get("database", user),
        application_name=parameters.get("application_name", ""),
        settings=_settings(parameters),
    )


def _settings(parameters: Mapping[str, str]) -> dict[str, str]:
    settings = {}
    for name, value in parameters.items():
        lower = name.lower()
        if lower in ("user", "database", "application_name"):
            continue
        if lower == "client_encoding":
            if value.strip("'\"").lower().replace("-", "").replace("_", "") not in ("utf8", "unicode", "auto"):
                raise SqlError("0A000", f"client_encoding {value!r} is not supported: use UTF8", severity="FATAL")
        elif (lower == "options" and not value.strip()) or (
            lower == "replication" and value.lower() in ("false", "off", "no", "0")
        ):
            continue
        elif lower in SETTABLE:
            settings[lower] = value
        else:
            refused = Refused(f"the startup parameter {name}", "set it for the role: ALTER ROLE ... SET, on every shard")
            refused.severity = "FATAL"
            raise refused
    return settings


def greet(wire: Wire, parameters: Mapping[str, str], pid: int, secret: int) -> None:
    """The end of the login: what the servers said of themselves, and the key for cancelling."""
    frames = [pg.authentication(0), *(pg.parameter_status(name, value) for name, value in parameters.items())]
    wire.writelines([*frames, pg.backend_key_data(pid, secret), pg.ready_for_query("I")])
    wire.max_frame = MAX_FRAME
