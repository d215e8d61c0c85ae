"""The model registry: which workers serve which model with which weights, while their heartbeats last."""

from __future__ import annotations

import contextlib
import time

import pytest
from processes import full, until

from convlens.jobs import model_registry
from convlens.jobs.pools import model_of, pool_of
from convlens.jobs.queue import keys
from convlens.jobs.runtime.redis_client import connect
from convlens.v1 import model_pb2

TTL = 3.0


@pytest.fixture
def client(redis_url):
    return connect(redis_url)


def card(digest="d1", **more):
    """A model card of the model m."""
    return model_pb2.Model(name="m", digest=digest, **more)


@contextlib.contextmanager
def registered(client, worker, *cards, ttl=60.0, refused=()):
    """Run the heartbeat of a worker that serves these cards, by default the model m with digest d1."""
    heartbeat = model_registry.RegistrationHeartbeat(client, worker, cards or [card()], ttl, refused)
    heartbeat.start()
    try:
        yield heartbeat
    finally:
        heartbeat.stop()


def refusal(name="bad", reason="the file is broken"):
    return model_pb2.RefusedModel(name=name, source="bad.keras", reason=reason)


def test_a_models_live_workers_are_counted_until_they_withdraw(client):
    with registered(client, "w1"), registered(client, "w2"):
        assert model_registry.read_live_workers(client) == {"w1", "w2"}
        assert model_registry.read_live_models(client).models == {"m": card(workers=2)}
    assert model_registry.read_live_workers(client) == set()
    assert model_registry.read_live_models(client).models == {}


def test_withdraw_removes_a_worker_in_the_background(client):
    with registered(client, "w1") as heartbeat:
        heartbeat.withdraw()
        until(lambda: not model_registry.read_live_models(client).models)


def test_a_pool_is_named_after_all_fields_that_results_depend_on():
    pool = pool_of(card("a" * 64))
    assert pool.startswith("m@" + "a" * 16 + "-")
    assert model_of(pool) == "m"
    for other in (card("b" * 64), card("a" * 64, labels=["cat"]), card("a" * 64, preprocess="unit")):
        assert pool_of(other) != pool
    for same in (card("a" * 64, source="copy.keras"), card("a" * 64, max_batch_size=64), card("a" * 64, workers=9)):
        assert pool_of(same) == pool
    assert pool_of(model_pb2.Model(name="null")) == "null"


def test_during_a_change_of_weights_the_newest_card_is_listed_with_its_own_workers(client):
    with registered(client, "old1"), registered(client, "old2"):
        time.sleep(0.01)  # Redis' clock is read in milliseconds
        with registered(client, "new", card("d2")):
            live = model_registry.read_live_models(client)
            assert live.models == {"m": card("d2", workers=1)}
            assert live.pools == {"m": pool_of(card("d2"))}
            assert model_registry.read_live_workers(client) == {"old1", "old2", "new"}
        assert model_registry.read_live_models(client).models == {"m": card(workers=2)}


def test_a_pool_whose_worker_restarts_does_not_become_the_newest(client):
    for worker, digest in (("old", "d3"), ("new", "d2"), ("newest", "d1")):  # not in alphabetical order
        with registered(client, worker, card(digest)):
            time.sleep(0.01)  # Redis' clock is read in milliseconds
    with registered(client, "new", card("d2")), registered(client, "old", card("d3")):
        assert model_registry.read_live_models(client).models["m"].digest == "d2"
        with registered(client, "newest", card("d1")):
            assert model_registry.read_live_models(client).models["m"].digest == "d1"


@pytest.mark.parametrize(("bound", "value"), [("POOL_MEMORY", 0.1), ("MAX_POOLS", 1)])
def test_a_pool_is_the_newest_again_after_it_was_forgotten(client, monkeypatch, bound, value):
    with registered(client, "old", ttl=0.3):
        client.rpush(keys.messages(pool_of(card())), "a message that no worker consumed")
    with registered(client, "new", card("d2")):
        until(lambda: client.zscore(keys.POOLS, pool_of(card())) + 0.1 < client.time()[0])
        monkeypatch.setattr(model_registry, bound, value)
        with registered(client, "another", card("d2")):
            assert client.zrange(keys.SINCE, 0, -1) == [pool_of(card("d2")).encode()]
            assert not client.exists(keys.messages(pool_of(card())))
            with registered(client, "old"):
                assert model_registry.read_live_models(client).models["m"].digest == "d1"


def test_each_worker_logs_once_that_its_model_is_also_served_by_another_pool(client, caplog):
    with registered(client, "w1", ttl=0.3), registered(client, "w2", card("d2"), ttl=0.3):
        warning = "served with other weights"
        until(lambda: caplog.text.count(warning) >= 2)
        time.sleep(0.5)  # several heartbeats
        assert caplog.text.count(warning) == 2
        older, newest = pool_of(card()), pool_of(card("d2"))
        assert f"by w1, as {older}, and here as {newest}; new jobs go to {newest}" in caplog.text
        assert f"by w2, as {newest}, and here as {older}; new jobs go to {newest}" in caplog.text


def test_a_worker_without_heartbeats_expires(client):
    heartbeat = model_registry.RegistrationHeartbeat(client, "w1", [card()], 0.3, [refusal()])
    heartbeat._publish()
    until(lambda: not model_registry.read_live_models(client).models)
    until(lambda: not model_registry.read_live_models(client).refused)


def test_refused_models_are_listed_until_their_workers_withdraw(client):
    with (
        registered(client, "w2", refused=[refusal("b"), refusal("a")]),
        registered(client, "w1", refused=[refusal("b")]),
    ):
        assert [(model.name, model.worker) for model in model_registry.read_live_models(client).refused] == [
            ("a", "w2"),
            ("b", "w1"),
            ("b", "w2"),
        ]
        assert model_registry.read_live_models(client).refused[0].source == "bad.keras"
    assert model_registry.read_live_models(client).refused == []


def test_a_long_reason_is_cut(client):
    with registered(client, "w1", refused=[refusal(reason="é" * 100_000)]):
        (model,) = model_registry.read_live_models(client).refused
        assert model.reason == "é" * 1999 + "…"


def test_cards_are_registered_in_a_full_redis(client):
    with full(client), registered(client, "w1", refused=[refusal()]):
        assert model_registry.read_live_workers(client) == {"w1"}
        assert len(model_registry.read_live_models(client).refused) == 1
