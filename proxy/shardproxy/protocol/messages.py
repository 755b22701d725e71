"""Building and reading PostgreSQL protocol messages (version 3); no I/O.

Invariant: a parser raises ProtocolViolation for any bytes that are not its message, and nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

from shardproxy.errors import ProtocolViolation, SqlError

# --- types of messages, from the frontend

QUERY, PARSE, BIND, DESCRIBE, EXECUTE, CLOSE, SYNC, FLUSH, TERMINATE = b"QPBDECSHX"
PASSWORD = ord("p")
COPY_DATA, COPY_DONE, COPY_FAIL, FUNCTION_CALL = b"dcfF"

# --- and from the backend

AUTHENTICATION, BACKEND_KEY_DATA, PARAMETER_STATUS, READY_FOR_QUERY = b"RKSZ"
ROW_DESCRIPTION, DATA_ROW, COMMAND_COMPLETE, EMPTY_QUERY, ERROR_RESPONSE, NOTICE_RESPONSE = b"TDCIEN"
PARSE_COMPLETE, BIND_COMPLETE, CLOSE_COMPLETE, PARAMETER_DESCRIPTION, NO_DATA, PORTAL_SUSPENDED = b"123tns"
NOTIFICATION, NEGOTIATE_VERSION, COPY_IN, COPY_OUT, COPY_BOTH = b"AvGHW"

PROTOCOL_3_0 = 196608
SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102

SYNC_FRAME = b"S\x00\x00\x00\x04"
FLUSH_FRAME = b"H\x00\x00\x00\x04"
PARSE_COMPLETE_FRAME = b"1\x00\x00\x00\x04"
BIND_COMPLETE_FRAME = b"2\x00\x00\x00\x04"
CLOSE_COMPLETE_FRAME = b"3\x00\x00\x00\x04"
NO_DATA_FRAME = b"n\x00\x00\x00\x04"
EMPTY_QUERY_FRAME = b"I\x00\x00\x00\x04"
NO_PARAMETERS_FRAME = b"t\x00\x00\x00\x06\x00\x00"

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _parser(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Whatever goes wrong with the bytes is a ProtocolViolation."""

    @wraps(function)
    def parse(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except (IndexError, ValueError, struct.error) as error:
            raise ProtocolViolation(f"malformed message in {function.__name__}: {error}") from None

    return parse


def frame(kind: int, body: bytes) -> bytes:
    """Type byte, length, body."""
    return struct.pack("!BI", kind, len(body) + 4) + body


def cstring(text: str) -> bytes:
    """UTF-8 with the closing zero byte."""
    return text.encode() + b"\0"


# --- frontend messages


def startup(parameters: Mapping[str, str]) -> bytes:
    """The first packet of a session, protocol 3.0."""
    body = struct.pack("!I", PROTOCOL_3_0) + b"".join(cstring(k) + cstring(v) for k, v in parameters.items()) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


def cancel_request(pid: int, secret: int) -> bytes:
    """The only packet of a cancelling connection."""
    return struct.pack("!IIII", 16, CANCEL_REQUEST, pid, secret)


def query(sql: str) -> bytes:
    """A simple query."""
    return frame(QUERY, cstring(sql))


def parse(name: str, sql: str, oids: Sequence[int] = ()) -> bytes:
    """Prepare a statement."""
    return frame(PARSE, cstring(name) + cstring(sql) + struct.pack(f"!H{len(oids)}I", len(oids), *oids))


def bind_empty(portal: str, statement: str) -> bytes:
    """Bind a statement without parameters, results as text."""
    return frame(BIND, cstring(portal) + cstring(statement) + b"\0\0\0\0\0\0")


def describe(kind: str, name: str) -> bytes:
    """`kind` is S (statement) or P (portal)."""
    return frame(DESCRIBE, kind.encode() + cstring(name))


def execute(portal: str, max_rows: int = 0) -> bytes:
    """Run a portal; 0 = all rows."""
    return frame(EXECUTE, cstring(portal) + struct.pack("!I", max_rows))


def close(kind: str, name: str) -> bytes:
    """Close a statement (S) or portal (P)."""
    return frame(CLOSE, kind.encode() + cstring(name))


def terminate() -> bytes:
    """The end of a session."""
    return frame(TERMINATE, b"")


def password(data: bytes) -> bytes:
    """An answer in an authentication exchange."""
    return frame(PASSWORD, data)


# --- backend messages


def authentication(code: int, data: bytes = b"") -> bytes:
    """0 = ok, 10 = SASL, 11 = continue, 12 = final."""
    return frame(AUTHENTICATION, struct.pack("!I", code) + data)


def parameter_status(name: str, value: str) -> bytes:
    """A setting that drivers follow."""
    return frame(PARAMETER_STATUS, cstring(name) + cstring(value))


def backend_key_data(pid: int, secret: int) -> bytes:
    """The key for CancelRequest."""
    return frame(BACKEND_KEY_DATA, struct.pack("!II", pid, secret))


def negotiate_version(options: Sequence[str]) -> bytes:
    """Only 3.0 is spoken, and these protocol options are not known."""
    body = struct.pack("!II", PROTOCOL_3_0, len(options)) + b"".join(cstring(option) for option in options)
    return frame(NEGOTIATE_VERSION, body)


def ready_for_query(status: str) -> bytes:
    """I, T or E."""
    return frame(READY_FOR_QUERY, status.encode())


def command_complete(tag: str) -> bytes:
    """The end of one statement."""
    return frame(COMMAND_COMPLETE, cstring(tag))


def row_description_text(names: Sequence[str]) -> bytes:
    """Columns of type text."""
    columns = (cstring(name) + struct.pack("!IHIhih", 0, 0, 25, -1, -1, 0) for name in names)
    return frame(ROW_DESCRIPTION, struct.pack("!H", len(names)) + b"".join(columns))


def data_row_text(values: Iterable[str | None]) -> bytes:
    """One row of text values."""
    cells = [struct.pack("!i", -1) if v is None else struct.pack("!i", len(v.encode())) + v.encode() for v in values]
    return frame(DATA_ROW, struct.pack("!H", len(cells)) + b"".join(cells))


def error_response(error: SqlError) -> bytes:
    """A server's own fields where it is a server's error, else ours."""
    return frame(ERROR_RESPONSE, _fields(error.fields or _our_fields(error)))


def notice_response(severity: str, sqlstate: str, message: str) -> bytes:
    """WARNING or NOTICE."""
    return frame(NOTICE_RESPONSE, _fields({"S": severity, "V": severity, "C": sqlstate, "M": message}))


def _our_fields(error: SqlError) -> dict[str, str]:
    fields = {"S": error.severity, "V": error.severity, "C": error.sqlstate, "M": error.message}
    optional = {"D": error.detail, "H": error.hint, "P": str(error.position) if error.position else ""}
    return fields | {letter: text for letter, text in optional.items() if text}


def _fields(fields: Mapping[str, str]) -> bytes:
    return b"".join(letter.encode() + cstring(text.replace("\0", "")) for letter, text in fields.items()) + b"\0"


# --- reading


class _Reader:
    """A cursor over one message's body."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def text(self) -> str:
        end = self.data.index(b"\0", self.at)
        text = self.data[self.at : end].decode()
        self.at = end + 1
        return text

    def bytes(self, size: int) -> bytes:
        if size < 0 or self.at + size > len(self.data):
            raise ValueError("longer than the message")
        taken = self.data[self.at : self.at + size]
        self.at += size
        return taken

    def int16(self) -> int:
        """A count, which Postgres takes as unsigned: there may be 65535 parameters."""
        return int.from_bytes(self.bytes(2), "big")

    def int32(self) -> int:
        return int.from_bytes(self.bytes(4), "big", signed=True)

    def end(self) -> None:
        if self.at != len(self.data):
            raise ValueError("trailing bytes")


@_parser
def parse_startup(packet: bytes) -> tuple[int, dict[str, str], tuple[int, int] | None]:
    """(code or protocol version, parameters, cancel key) of a first packet as `Wire.read_startup` gives it."""
    reader = _Reader(packet, 4)
    code = reader.int32()
    if code == CANCEL_REQUEST:
        pid, secret = struct.unpack("!II", reader.bytes(8))
        return code, {}, (pid, secret)
    if code in (SSL_REQUEST, GSS_REQUEST):
        return code, {}, None
    parameters: dict[str, str] = {}
    while packet[reader.at] != 0:
        name = reader.text()
        parameters[name] = reader.text()
    return code, parameters, None


@dataclass(frozen=True)
class Parse:
    """A client's Parse."""

    name: str
    sql: str
    oids: tuple[int, ...]


@_parser
def parse_parse(data: bytes) -> Parse:
    """A Parse frame."""
    reader = _Reader(data, 5)
    name, sql = reader.text(), reader.text()
    oids = struct.unpack(f"!{(count := reader.int16())}I", reader.bytes(4 * count))
    reader.end()
    return Parse(name, sql, oids)


@dataclass(frozen=True)
class Bind:
    """A client's Bind; `tail` is everything behind the two names, to be sent on as it is."""

    portal: str
    statement: str
    formats: tuple[int, ...]
    values: tuple[bytes | None, ...]
    tail: bytes

    def is_binary(self, index: int) -> bool:
        """Whether parameter `index` (from 0) is in binary format."""
        if len(self.formats) == 1:
            return self.formats[0] == 1
        return bool(self.formats) and self.formats[index] == 1

    def for_statement(self, statement: str) -> bytes:
        """The same Bind for another name of the statement."""
        return frame(BIND, cstring(self.portal) + cstring(statement) + self.tail)


@_parser
def parse_bind(data: bytes) -> Bind:
    """A Bind frame."""
    reader = _Reader(data, 5)
    portal, statement = reader.text(), reader.text()
    tail = data[reader.at :]
    formats = tuple(reader.int16() for _ in range(reader.int16()))
    count = reader.int16()
    values = tuple(reader.bytes(size) if (size := reader.int32()) != -1 else None for _ in range(count))
    if any(each not in (0, 1) for each in formats) or len(formats) not in (0, 1, count):
        raise ValueError("parameter formats")
    reader.bytes(2 * reader.int16())
    reader.end()
    return Bind(portal, statement, formats, values, tail)


@_parser
def parse_target(data: bytes) -> tuple[str, str]:
    """(S or P, name) of a Describe or Close frame."""
    reader = _Reader(data, 6)
    name = reader.text()
    kind = chr(data[5])
    if kind not in "SP":
        raise ValueError("neither statement nor portal")
    reader.end()
    return kind, name


@_parser
def parse_execute(data: bytes) -> tuple[str, int]:
    """(portal, row limit) of an Execute frame."""
    reader = _Reader(data, 5)
    name, limit = reader.text(), reader.int32()
    reader.end()
    return name, limit


@_parser
def parse_query(data: bytes) -> str:
    """The text of a Query frame."""
    reader = _Reader(data, 5)
    text = reader.text()
    reader.end()
    return text


@_parser
def parse_fields(data: bytes) -> dict[str, str]:
    """Fields of an ErrorResponse or NoticeResponse by letter."""
    reader, fields = _Reader(data, 5), {}
    while data[reader.at] != 0:
        letter = chr(data[reader.at])
        reader.at += 1
        end = data.index(b"\0", reader.at)
        fields[letter] = data[reader.at : end].decode(errors="replace")
        reader.at = end + 1
    return fields


def sql_error(data: bytes) -> SqlError:
    """A server's ErrorResponse as an exception that can be passed on whole."""
    fields = parse_fields(data)
    return SqlError(
        fields.get("C", "XX000"),
        fields.get("M", "unknown error"),
        detail=fields.get("D", ""),
        hint=fields.get("H", ""),
        severity=fields.get("V", "ERROR"),
        schema=fields.get("s", ""),
        table=fields.get("t", ""),
        fields=fields,
    )


@_parser
def parse_command_tag(data: bytes) -> str:
    """The tag of a CommandComplete."""
    return _Reader(data, 5).text()


@_parser
def parse_data_row_text(data: bytes) -> tuple[str | None, ...]:
    """A DataRow of text values."""
    reader = _Reader(data, 5)
    return tuple(reader.bytes(size).decode() if (size := reader.int32()) != -1 else None for _ in range(reader.int16()))


@_parser
def parse_parameter_status(data: bytes) -> tuple[str, str]:
    """Name and value."""
    reader = _Reader(data, 5)
    return reader.text(), reader.text()


@_parser
def comparable_row_description(data: bytes) -> tuple[tuple[str, bytes], ...]:
    """Names and types of the columns, without the table's OID, which differs from shard to shard."""
    reader = _Reader(data, 5)
    columns = []
    for _ in range(reader.int16()):
        name = reader.text()
        columns.append((name, reader.bytes(18)[6:]))
    return tuple(columns)
