"""Cards: who serves which model with which weights, as long as they say so; and who cannot."""

from __future__ import annotations

import contextlib
import time

import pytest
from processes import full, until

from convlens.jobs import model_registry
from convlens.jobs.queue import keys
from convlens.jobs.runtime.redis_client import connect
from convlens.v1 import model_pb2

TTL = 3.0


@pytest.fixture
def client(redis_url):
    return connect(redis_url)


def card(digest="d1", **more):
    """One of the model m."""
    return model_pb2.Model(name="m", digest=digest, **more)


@contextlib.contextmanager
def heralded(client, worker, *found, ttl=60.0, refused=()):
    """A worker that says that it serves these; the model m of weights d1 if nothing else."""
    herald = model_registry.Herald(client, worker, found or [card()], ttl, refused)
    herald.start()
    try:
        yield herald
    finally:
        herald.stop()


def refusal(name="bad", reason="the file is broken"):
    return model_pb2.RefusedModel(name=name, source="bad.keras", reason=reason)


def test_workers_of_a_model_are_counted_until_they_withdraw(client):
    with heralded(client, "w1"), heralded(client, "w2"):
        assert model_registry.workers(client) == {"w1", "w2"}
        assert model_registry.live(client).models == {"m": card(workers=2)}
    assert model_registry.workers(client) == set()
    assert model_registry.live(client).models == {}


def test_a_worker_that_is_to_withdraw_is_not_counted_on_any_more(client):
    with heralded(client, "w1") as herald:
        herald.withdraw()
        until(lambda: not model_registry.live(client).models)


def test_a_card_tells_its_workers_alike_by_all_that_answers_depend_on():
    pool = model_registry.pool_of(card("a" * 64))
    assert pool.startswith("m@" + "a" * 16 + "-")
    assert model_registry.model_of(pool) == "m"
    for other in (card("b" * 64), card("a" * 64, labels=["cat"]), card("a" * 64, preprocess="unit")):
        assert model_registry.pool_of(other) != pool
    for alike in (card("a" * 64, source="copy.keras"), card("a" * 64, max_batch_size=64), card("a" * 64, workers=9)):
        assert model_registry.pool_of(alike) == pool
    assert model_registry.pool_of(model_pb2.Model(name="null")) == "null"


def test_while_weights_change_the_newest_are_shown_and_count_their_own_workers(client):
    with heralded(client, "old1"), heralded(client, "old2"):
        time.sleep(0.01)  # Redis' clock is read in milliseconds
        with heralded(client, "new", card("d2")):
            live = model_registry.live(client)
            assert live.models == {"m": card("d2", workers=1)}
            assert live.pools == {"m": model_registry.pool_of(card("d2"))}
            assert model_registry.workers(client) == {"old1", "old2", "new"}
        assert model_registry.live(client).models == {"m": card(workers=2)}


def test_a_worker_of_the_old_weights_that_restarts_meanwhile_is_not_the_newest(client):
    for worker, digest in (("old", "d3"), ("new", "d2"), ("newest", "d1")):  # in no order that names have
        with heralded(client, worker, card(digest)):
            time.sleep(0.01)  # Redis' clock is read in milliseconds
    with heralded(client, "new", card("d2")), heralded(client, "old", card("d3")):
        assert model_registry.live(client).models["m"].digest == "d2"
        with heralded(client, "newest", card("d1")):
            assert model_registry.live(client).models["m"].digest == "d1"


@pytest.mark.parametrize(("bound", "value"), [("REMEMBERED", 0.1), ("MOST_REMEMBERED", 1)])
def test_weights_that_nobody_served_for_long_are_forgotten_and_new_again(client, monkeypatch, bound, value):
    with heralded(client, "old", ttl=0.3):
        client.rpush(keys.messages(model_registry.pool_of(card())), "a message that nobody took")
    with heralded(client, "new", card("d2")):
        until(lambda: client.zscore(keys.POOLS, model_registry.pool_of(card())) + 0.1 < client.time()[0])
        monkeypatch.setattr(model_registry, bound, value)
        with heralded(client, "another", card("d2")):
            assert client.zrange(keys.SINCE, 0, -1) == [model_registry.pool_of(card("d2")).encode()]
            assert not client.exists(keys.messages(model_registry.pool_of(card())))
            with heralded(client, "old"):
                assert model_registry.live(client).models["m"].digest == "d1"


def test_each_worker_says_once_that_the_model_is_also_served_otherwise(client, caplog):
    with heralded(client, "w1", ttl=0.3), heralded(client, "w2", card("d2"), ttl=0.3):
        told = "served with other weights"
        until(lambda: caplog.text.count(told) >= 2)
        time.sleep(0.5)  # several times as long as until the next word
        assert caplog.text.count(told) == 2
        older, newest = (model_registry.pool_of(it) for it in (card(), card("d2")))
        assert f"by w1, as {older}, and here as {newest}; new jobs go to {newest}" in caplog.text
        assert f"by w2, as {newest}, and here as {older}; new jobs go to {newest}" in caplog.text


def test_a_worker_that_falls_silent_is_forgotten(client):
    herald = model_registry.Herald(client, "w1", [card()], 0.3, [refusal()])
    herald._say()
    until(lambda: not model_registry.live(client).models)
    until(lambda: not model_registry.live(client).refused)


def test_what_workers_refuse_is_known_until_they_withdraw(client):
    with heralded(client, "w2", refused=[refusal("b"), refusal("a")]), heralded(client, "w1", refused=[refusal("b")]):
        assert [(it.name, it.worker) for it in model_registry.live(client).refused] == [
            ("a", "w2"),
            ("b", "w1"),
            ("b", "w2"),
        ]
        assert model_registry.live(client).refused[0].source == "bad.keras"
    assert model_registry.live(client).refused == []


def test_of_a_long_reason_only_its_beginning_is_published(client):
    with heralded(client, "w1", refused=[refusal(reason="é" * 100_000)]):
        (found,) = model_registry.live(client).refused
        assert found.reason == "é" * 1999 + "…"


def test_a_full_redis_takes_cards(client):
    with full(client), heralded(client, "w1", refused=[refusal()]):
        assert model_registry.workers(client) == {"w1"}
        assert len(model_registry.live(client).refused) == 1
