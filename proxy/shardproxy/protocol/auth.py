"""Logging in: clients to us (SCRAM-SHA-256), and us to servers (whatever the server asks for).

Invariant: no password and no key ever appears in an exception or a log line; an unknown user goes through the same exchange as
a known one and fails at the same place.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from scramp import ScramClient, ScramException, ScramMechanism

from shardproxy.errors import ProtocolViolation, SqlError
from shardproxy.protocol import messages as pg
from shardproxy.protocol.wire import MAX_FRAME, Wire

_MECHANISM = ScramMechanism("SCRAM-SHA-256")
_ITERATIONS = 4096
"""PostgreSQL's own default."""

Verifier = tuple[bytes, bytes, bytes, int]
"""salt, stored key, server key, iterations."""


def make_verifier(password: str) -> Verifier:
    """What SCRAM needs to know of a password; takes some milliseconds of CPU on purpose."""
    verifier: Verifier = _MECHANISM.make_auth_info(password, iteration_count=_ITERATIONS)
    return verifier


_DECOY = make_verifier(secrets.token_hex(16))
"""Stands in for the verifier of a user that does not exist."""


async def authenticate_client(wire: Wire, user: str, verifier: Verifier | None, timeout: float) -> None:
    """SCRAM-SHA-256; raises SqlError 28P01 for a wrong password and for an unknown user (`verifier` None) alike.

    The server's half is our own (RFC 5802): clients of PostgreSQL leave the name in the exchange empty, which scramp refuses.
    """
    refused = SqlError("28P01", f'password authentication failed for user "{user}"', severity="FATAL")
    wire.write(pg.authentication(10, b"SCRAM-SHA-256\0\0"))
    exchange = ScramExchange(verifier or _unknown_user(user))
    try:
        first = exchange.server_first(_sasl_initial(await wire.read_frame(timeout)))
        wire.write(pg.authentication(11, first.encode()))
        answer = await wire.read_frame(timeout)
        if answer[0] != pg.PASSWORD:
            raise ProtocolViolation("expected a SASL answer")
        final = exchange.server_final(answer[5:].decode())
    except ValueError as error:
        raise refused from error
    if verifier is None:
        raise refused
    wire.write(pg.authentication(12, final.encode()))


def _unknown_user(user: str) -> Verifier:
    """A salt that stays the same for one name, as a real user's does."""
    salt = hmac.digest(_DECOY[1], user.encode(), "sha256")[: len(_DECOY[0])]
    return salt, _DECOY[1], _DECOY[2], _DECOY[3]


class ScramExchange:
    """The server's side of one SCRAM-SHA-256 exchange without channel binding; raises ValueError for a wrong proof."""

    def __init__(self, verifier: Verifier) -> None:
        self._salt, self._stored_key, self._server_key, self._iterations = verifier
        self._messages = ""
        self._nonce = ""
        self._header = ""

    def server_first(self, client_first: str) -> str:
        """`client_first` is the client's whole first message."""
        flag, _, rest = client_first.partition(",")
        authzid, _, bare = rest.partition(",")
        fields = dict(part.split("=", 1) for part in bare.split(",") if "=" in part)
        if flag not in ("n", "y") or authzid or not fields.get("r"):
            raise ValueError("a client-first message that asks for something else than SCRAM-SHA-256")
        self._header = f"{flag},,"
        self._nonce = fields["r"] + secrets.token_urlsafe(18)
        answer = f"r={self._nonce},s={base64.b64encode(self._salt).decode()},i={self._iterations}"
        self._messages = f"{bare},{answer}"
        return answer

    def server_final(self, client_final: str) -> str:
        """Check the client's proof, and prove that we know the password too."""
        without_proof, _, proof = client_final.rpartition(",p=")
        binding = base64.b64encode(self._header.encode()).decode()
        if without_proof != f"c={binding},r={self._nonce}":
            raise ValueError("a client-final message that does not fit the exchange")
        message = f"{self._messages},{without_proof}".encode()
        signature = hmac.digest(self._stored_key, message, "sha256")
        sent = base64.b64decode(proof, validate=True)
        if len(sent) != len(signature):
            raise ValueError("a proof of the wrong length")
        client_key = bytes(one ^ other for one, other in zip(sent, signature, strict=True))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), self._stored_key):
            raise ValueError("wrong proof")
        return "v=" + base64.b64encode(hmac.digest(self._server_key, message, "sha256")).decode()


def _sasl_initial(frame: bytes) -> str:
    if frame[0] != pg.PASSWORD:
        raise ProtocolViolation("expected a SASL answer")
    mechanism, _, rest = frame[5:].partition(b"\0")
    if mechanism != b"SCRAM-SHA-256" or len(rest) < 4:
        raise ProtocolViolation("only SCRAM-SHA-256 is offered")
    return rest[4:].decode()


@dataclass(frozen=True)
class ServerGreeting:
    """What a server said at login."""

    parameters: Mapping[str, str]
    pid: int
    secret: int


async def login(
    wire: Wire, *, user: str, password: str, database: str, parameters: Mapping[str, str], timeout: float
) -> ServerGreeting:
    """Log in to a server; raises its error as SqlError, or LinkLost."""
    wire.write(pg.startup({"user": user, "database": database, "client_encoding": "UTF8", **parameters}))
    await _authenticate(wire, user, password, timeout)
    wire.max_frame = MAX_FRAME
    status: dict[str, str] = {}
    pid = secret = 0
    while True:
        answer = await wire.read_frame(timeout)
        match answer[0]:
            case pg.PARAMETER_STATUS:
                name, value = pg.parse_parameter_status(answer)
                status[name] = value
            case pg.BACKEND_KEY_DATA:
                pid, secret = struct.unpack("!II", answer[5:13])
            case pg.READY_FOR_QUERY:
                return ServerGreeting(status, pid, secret)
            case pg.ERROR_RESPONSE:
                raise pg.sql_error(answer)
            case pg.NOTICE_RESPONSE | pg.NEGOTIATE_VERSION:
                continue
            case kind:
                raise ProtocolViolation(f"the server sent message {chr(kind)!r} during login")


async def _authenticate(wire: Wire, user: str, password: str, timeout: float) -> None:
    scram: ScramClient | None = None
    while True:
        answer = await wire.read_frame(timeout)
        if answer[0] == pg.ERROR_RESPONSE:
            raise pg.sql_error(answer)
        if answer[0] == pg.NOTICE_RESPONSE:
            continue
        if answer[0] != pg.AUTHENTICATION or len(answer) < 9:
            raise ProtocolViolation("the server does not speak the PostgreSQL protocol")
        code, data = int.from_bytes(answer[5:9], "big"), answer[9:]
        try:
            if code == 10:
                if b"SCRAM-SHA-256" not in data.split(b"\0"):
                    raise ProtocolViolation("the server offers no SASL mechanism that is known here")
                scram = ScramClient(["SCRAM-SHA-256"], user, password)
                first = scram.get_client_first().encode()
                wire.write(pg.password(pg.cstring("SCRAM-SHA-256") + struct.pack("!I", len(first)) + first))
            elif code == 11 and scram is not None:
                scram.set_server_first(data.decode())
                wire.write(pg.password(scram.get_client_final().encode()))
            elif code == 12 and scram is not None:
                scram.set_server_final(data.decode())
            elif code == 0:
                return
            else:
                wire.write(pg.password(_plain_answer(code, data, user, password)))
        except (ScramException, ValueError) as error:
            raise ProtocolViolation("the server could not prove that it knows the password") from error


def _plain_answer(code: int, data: bytes, user: str, password: str) -> bytes:
    if code == 3:
        return pg.cstring(password)
    if code == 5:
        inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()
        return b"md5" + hashlib.md5(inner.encode() + data[:4], usedforsecurity=False).hexdigest().encode() + b"\0"
    raise ProtocolViolation(f"the server asks for authentication method {code}, which is not supported")
