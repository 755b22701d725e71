"""Parsers of protocol messages: whatever the bytes are, they give a message or ProtocolViolation, and nothing else."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import ProtocolViolation, SqlError
from shardproxy.protocol import messages as pg

PARSERS: list[Callable[[bytes], object]] = [
    pg.parse_startup, pg.parse_parse, pg.parse_bind, pg.parse_target, pg.parse_execute, pg.parse_query, pg.parse_fields, pg.sql_error,
    pg.parse_command_tag, pg.parse_data_row_text, pg.parse_parameter_status, pg.comparable_row_description,
]  # fmt: skip

BIND = pg.frame(
    pg.BIND, b"p\0s\0" + struct.pack("!HHHH", 2, 1, 0, 2) + struct.pack("!i", 8) + bytes(8) + struct.pack("!i", -1) + b"\0\0"
)
VALID: list[tuple[Callable[[bytes], object], bytes, object]] = [
    (pg.parse_startup, pg.startup({"user": "u", "database": "d"}), (196608, {"user": "u", "database": "d"}, None)),
    (pg.parse_startup, pg.cancel_request(7, 8), (80877102, {}, (7, 8))),
    (pg.parse_startup, struct.pack("!II", 8, pg.SSL_REQUEST), (pg.SSL_REQUEST, {}, None)),
    (pg.parse_parse, pg.parse("s", "SELECT 'ä'", (20, 0)), pg.Parse("s", "SELECT 'ä'", (20, 0))),
    (pg.parse_bind, BIND, pg.Bind("p", "s", (1, 0), (bytes(8), None), BIND[9:])),
    (pg.parse_target, pg.describe("S", "s"), ("S", "s")),
    (pg.parse_target, pg.close("P", ""), ("P", "")),
    (pg.parse_execute, pg.execute("p", 5), ("p", 5)),
    (pg.parse_query, pg.query("SELECT 1; SELECT 2"), "SELECT 1; SELECT 2"),
    (pg.parse_command_tag, pg.command_complete("INSERT 0 1"), "INSERT 0 1"),
    (pg.parse_data_row_text, pg.data_row_text(["a", None, ""]), ("a", None, "")),
    (pg.parse_parameter_status, pg.parameter_status("TimeZone", "UTC"), ("TimeZone", "UTC")),
    (pg.parse_fields, pg.notice_response("NOTICE", "00000", "m"), {"S": "NOTICE", "V": "NOTICE", "C": "00000", "M": "m"}),
    (pg.comparable_row_description, pg.row_description_text(["a"]), (("a", struct.pack("!Ihih", 25, -1, -1, 0)),)),
]


@pytest.mark.parametrize(("parser", "data", "value"), VALID)
def test_what_is_built_is_read(parser: Callable[[bytes], object], data: bytes, value: object) -> None:
    assert parser(data) == value


@pytest.mark.parametrize(("parser", "data", "value"), VALID)
def test_cut_off_anywhere(parser: Callable[[bytes], object], data: bytes, value: object) -> None:
    for size in range(len(data)):
        try:
            assert parser(data[:size]) is not value
        except ProtocolViolation:
            continue


STRICT = [pg.parse_parse, pg.parse_bind, pg.parse_target, pg.parse_execute, pg.parse_query]


@pytest.mark.parametrize(("parser", "data", "value"), [one for one in VALID if one[0] in STRICT])
def test_more_than_the_message(parser: Callable[[bytes], object], data: bytes, value: object) -> None:
    with pytest.raises(ProtocolViolation, match="malformed message in parse_"):
        parser(data + b"\0")


@pytest.mark.parametrize("parser", PARSERS)
@given(data=st.binary(max_size=80))
def test_random_bytes(parser: Callable[[bytes], object], data: bytes) -> None:
    try:
        parser(data)
    except ProtocolViolation:
        return


@pytest.mark.parametrize(("parser", "data", "value"), VALID)
@given(at=st.integers(0, 200), byte=st.integers(0, 255), stretch=st.integers(0, 9))
def test_one_wrong_byte(parser: Callable[[bytes], object], data: bytes, value: object, at: int, byte: int, stretch: int) -> None:
    changed = bytearray(data)
    changed[at % len(data)] = byte
    try:
        parser(bytes(changed) + bytes(stretch))
    except ProtocolViolation:
        return


@pytest.mark.parametrize(
    "tail",
    [
        struct.pack("!H", 1) + b"\0\0" + struct.pack("!i", 5) + b"abc",  # longer than the message
        struct.pack("!H", 0) + struct.pack("!H", 1) + struct.pack("!i", -2),  # a negative length
        struct.pack("!HH", 1, 9) + struct.pack("!H", 0) + b"\0\0",  # a format that is none
        struct.pack("!HHHH", 3, 0, 0, 0) + struct.pack("!H", 1) + struct.pack("!i", -1) + b"\0\0",  # more formats than values
        struct.pack("!H", 0) + b"\xff\xff" + b"\0\0",  # more values than there are bytes
    ],
)
def test_bad_binds(tail: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        pg.parse_bind(pg.frame(pg.BIND, b"\0\0" + tail))


def test_as_many_parameters_as_postgres_takes() -> None:
    values = struct.pack("!i", -1) * 65535
    assert len(pg.parse_bind(pg.frame(pg.BIND, b"\0\0\0\0\xff\xff" + values + b"\0\0")).values) == 65535
    assert len(pg.parse_parse(pg.parse("", "SELECT 1", (20,) * 65535)).oids) == 65535


def test_formats_of_a_bind() -> None:
    def bind(*formats: int) -> pg.Bind:
        return pg.Bind("", "", formats, (b"", b""), b"")

    assert [bind().is_binary(index) for index in (0, 1)] == [False, False]
    assert [bind(1).is_binary(index) for index in (0, 1)] == [True, True]
    assert [bind(0, 1).is_binary(index) for index in (0, 1)] == [False, True]
    renamed = pg.parse_bind(pg.parse_bind(BIND).for_statement("other"))
    assert (renamed.portal, renamed.statement, renamed.values) == ("p", "other", (bytes(8), None))


def test_a_servers_error_is_passed_on_whole() -> None:
    fields = {
        "S": "FEHLER",
        "V": "ERROR",
        "C": "23505",
        "M": "m",
        "D": "d",
        "s": "public",
        "t": "accounts",
        "n": "key",
        "W": "where",
    }
    data = pg.frame(pg.ERROR_RESPONSE, b"".join(k.encode() + pg.cstring(v) for k, v in fields.items()) + b"\0")
    error = pg.sql_error(data)
    assert (error.sqlstate, error.schema, error.table, error.severity) == ("23505", "public", "accounts", "ERROR")
    assert pg.error_response(error) == data


def test_our_own_error() -> None:
    error = SqlError("42601", "a\0b", hint="h", detail="d", position=3)
    assert pg.parse_fields(pg.error_response(error)) == {
        "S": "ERROR", "V": "ERROR", "C": "42601", "M": "ab", "D": "d", "H": "h", "P": "3",
    }  # fmt: skip
