"""The server's half of SCRAM against scramp's client, and against clients that lie."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient, ScramException

from shardproxy.protocol.auth import ScramExchange, make_verifier

VERIFIER = make_verifier("s3cret")


def _first() -> tuple[ScramClient, ScramExchange]:
    client, exchange = ScramClient(["SCRAM-SHA-256"], "app", "s3cret"), ScramExchange(VERIFIER)
    client.set_server_first(exchange.server_first(client.get_client_first()))
    return client, exchange


def test_the_right_password() -> None:
    client, exchange = _first()
    client.set_server_final(exchange.server_final(client.get_client_final()))


def test_a_wrong_password() -> None:
    client, exchange = ScramClient(["SCRAM-SHA-256"], "app", "other"), ScramExchange(VERIFIER)
    client.set_server_first(exchange.server_first(client.get_client_first()))
    with pytest.raises(ValueError, match="wrong proof"):
        exchange.server_final(client.get_client_final())


def test_a_server_that_does_not_know_the_password() -> None:
    client, _ = _first()
    client.get_client_final()
    with pytest.raises(ScramException):
        client.set_server_final("v=" + base64.b64encode(bytes(32)).decode())


@pytest.mark.parametrize(
    "first", ["", "n", "n,,", "n,,n=", "n,,n=,r=", "y,a=app,n=,r=x", "p=tls-unique,,n=,r=x", "x,,n=,r=x", ",,,,"]
)
def test_first_messages_that_are_refused(first: str) -> None:
    with pytest.raises(ValueError, match="client-first"):
        ScramExchange(VERIFIER).server_first(first)


def test_final_messages_that_are_refused() -> None:
    client, exchange = _first()
    final = client.get_client_final()
    body, _, proof = final.rpartition(",p=")
    changed = [
        "", body, f"{body},p=", f"{body},p=!!!", f"{body},p={base64.b64encode(bytes(31)).decode()}", f"{body[:-1]},p={proof}",
        f"{body},x=1,p={proof}", "c=eSws" + final[6:], f"{body},p={base64.b64encode(bytes(32)).decode()}",
    ]  # fmt: skip
    for one in changed:
        with pytest.raises(ValueError, match=r"."):
            exchange.server_final(one)
    assert exchange.server_final(final).startswith("v=")


def test_nonces_differ() -> None:
    assert len({ScramExchange(VERIFIER).server_first("n,,n=,r=x") for _ in range(5)}) == 5


@given(st.text(max_size=60), st.text(max_size=60))
def test_anything_is_refused(first: str, final: str) -> None:
    exchange = ScramExchange(VERIFIER)
    try:
        exchange.server_first(first)
        exchange.server_final(final)
    except ValueError:
        return
    raise AssertionError("accepted")
