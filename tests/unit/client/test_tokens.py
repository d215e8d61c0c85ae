"""Tokens: that of a client, and those of clients that share its connection."""

from __future__ import annotations

import pytest
from token_reader import token_reader

from convlens.client import AsyncClient, Client, InvalidArgument, Unauthenticated
from convlens.client.testing import serve


def test_a_client_with_another_token_sends_it_and_leaves_the_first_as_it_is():
    with token_reader() as target, Client(target, token="one") as client:
        other, anonymous = client.with_token("two"), client.with_token(None)
        for caller, sent in ((other, "Bearer two"), (anonymous, None), (client, "Bearer one")):
            for call in (caller.models, lambda: list(caller.jobs()), lambda: caller.saliency(b"\x89PNG")):  # noqa: B023
                with pytest.raises(Unauthenticated, match=f"token: {sent}"):
                    call()


async def test_the_same_holds_for_the_asynchronous_client():
    with token_reader() as target:
        async with AsyncClient(target, token="one") as client:
            for caller, sent in ((client.with_token("two"), "Bearer two"), (client, "Bearer one")):
                with pytest.raises(Unauthenticated, match=f"token: {sent}"):
                    await caller.models()


def test_clients_that_differ_by_token_share_one_connection():
    with serve() as target, Client(target) as client:
        other = client.with_token("two")
        other.models()
        client.models()
        assert client._calls.transport.current is other._calls.transport.current
        client.close()
        assert other._calls.transport.current is None


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_token_that_cannot_be_sent_is_refused(kind):
    with pytest.raises(InvalidArgument, match="visible ASCII") as caught:
        kind("localhost:1").with_token("two\n")
    assert caught.value.field == "token"
