"""All exceptions of the proxy.

`SqlError` is what a client sees: it becomes an ErrorResponse with that SQLSTATE.  The others are for the person who starts
the proxy.  Every message says what is wrong, where, and what to do; none holds a password.

    ShardproxyError
      ConfigError             a configuration file can't be used
      ProtocolViolation       the peer sent bytes that are not the PostgreSQL protocol
      LinkLost                a connection ended, or stayed silent past its time limit
      SqlError                the client is answered with an error
        Refused               0A000: a construct that the proxy does not know to answer exactly
"""


class ShardproxyError(Exception):
    """Base of every error that the proxy raises on purpose."""


class ConfigError(ShardproxyError):
    """A configuration file can't be used; the message names file, key, value and what is allowed."""


class ProtocolViolation(ShardproxyError):
    """The peer sent bytes that are not the PostgreSQL protocol; the connection can't be used any more."""


class LinkLost(ShardproxyError):
    """A connection ended or stayed silent past its limit: what was asked last may or may not have been done."""


class SqlError(ShardproxyError):
    """An error for the client, with the fields of an ErrorResponse."""

    def __init__(
        self,
        sqlstate: str,
        message: str,
        *,
        detail: str = "",
        hint: str = "",
        severity: str = "ERROR",
        position: int = 0,
        schema: str = "",
        table: str = "",
        fields: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint
        self.severity = severity
        self.position = position
        """1-based character offset into the statement; 0 = none."""
        self.schema = schema
        self.table = table
        """Which table a server's error is about, where it said so."""
        self.fields = fields or {}
        """All fields of a server's ErrorResponse by their letter, to be passed on whole; empty for an error of ours."""


class Refused(SqlError):
    """0A000: the proxy can't answer this exactly as one Postgres with all the rows would, so it does not try."""

    def __init__(self, construct: str, way_round: str) -> None:
        super().__init__("0A000", f"pgshepherd does not support {construct}", hint=way_round)
