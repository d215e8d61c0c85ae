"""Cards: who serves which model, as long as they say so."""

from __future__ import annotations

import contextlib

import pytest
from processes import full, until

from convlens.jobs import cards
from convlens.jobs.connect import connect
from convlens.v1 import model_pb2

TTL = 3.0


@pytest.fixture
def client(redis_url):
    return connect(redis_url)


@contextlib.contextmanager
def heralded(client, worker, digest="d1", ttl=60.0):
    """A worker that says that it serves the model m of these weights."""
    herald = cards.Herald(client, worker, [model_pb2.Model(name="m", digest=digest)], ttl)
    herald.start()
    try:
        yield
    finally:
        herald.stop()


def test_workers_of_a_model_are_counted_until_they_withdraw(client):
    with heralded(client, "w1"), heralded(client, "w2"):
        assert cards.workers(client) == {"w1", "w2"}
        assert cards.live(client) == {"m": model_pb2.Model(name="m", digest="d1", workers=2)}
    assert cards.workers(client) == set()
    assert cards.live(client) == {}


def test_other_weights_under_the_same_name_are_published_when_the_last_worker_of_the_first_is_gone(client, caplog):
    with heralded(client, "w1"), heralded(client, "w2", "d2", TTL):
        assert "model=m card not published: served with other weights by w1" in caplog.text
        assert cards.live(client)["m"].digest == "d1"
        cards.withdraw(client, "w1", ["m"])
        until(lambda: cards.workers(client) == {"w2"})
        assert cards.live(client)["m"].digest == "d2"
    assert cards.live(client) == {}


def test_a_worker_that_falls_silent_is_forgotten(client):
    herald = cards.Herald(client, "w1", [model_pb2.Model(name="m", digest="d1")], 0.3)
    herald._say()
    until(lambda: not cards.live(client))


def test_a_full_redis_takes_cards(client):
    with full(client), heralded(client, "w1"):
        assert cards.workers(client) == {"w1"}
