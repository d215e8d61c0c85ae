"""Corrupted keys, messages and records in Redis neither stop new calls nor make the health check wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid

import grpc
import numpy as np
import pytest
import redis
from celery_messages import MALFORMED
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import until
from resource_usage import PHOTO

from convlens.client import Client, JobFailed, NotFound, Saliency

GARBAGE = b"\xff garbage"
SECONDS = 10


class Stack:
    """A server, a worker of the models `null` and `slow` (300 ms a batch), and their Redis."""

    def __init__(self, service, folder):
        self.worker = service.worker("null=null", "slow=null,device_ms=300+0")
        self.server, self.target = service.server()
        self.redis = redis.Redis.from_url(service.url)
        self.client = Client(self.target, timeout=SECONDS)
        self.channel = grpc.insecure_channel(self.target)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        self.folder = folder

    def call(self):
        """Make a call and return its duration in seconds."""
        start = time.monotonic()
        self.client.visualize(PHOTO, [Saliency()], model="null", fresh=True)
        return time.monotonic() - start

    def submit_jobs(self):
        """Submit jobs that will be in every state: ended, running, queued, and waiting for an equal one."""
        photos = np.random.default_rng().integers(0, 256, (3, 32, 32, 3), np.uint8)
        jobs = [self.client.submit(photos, [Saliency()], model=model) for model in ("null", "slow", "slow")]
        jobs += [self.client.submit(photo, [Saliency()], model="slow", priority="low") for photo in photos]
        return jobs

    def is_serving(self):
        return self.health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING

    def is_well(self):
        """True when a call is answered and the health check says SERVING; fails if a process has ended."""
        assert self.worker.poll() is None
        assert self.server.poll() is None
        assert self.call() < SECONDS
        return self.is_serving()

    def poisoned(self):
        """The entries that the service has set aside as unreadable."""
        return self.redis.lrange("convlens:poisoned", 0, -1)


@pytest.fixture(scope="module")
def stack(start_service, tmp_path_factory):
    folder = tmp_path_factory.mktemp("payloads")
    stack = Stack(start_service(payload_dir=folder, metrics_address="127.0.0.1:0"), folder)
    until(stack.is_well)
    yield stack
    stack.client.close()
    stack.channel.close()


def corrupt(client, key, damage):
    """Delete a key, change its type, or put garbage into it."""
    kind = client.type(key)
    if damage == "deleted":
        client.delete(key)
    elif damage == "another type":
        client.delete(key)
        client.rpush(key, "x") if kind == b"string" else client.set(key, "x")
    elif kind == b"zset":
        client.zadd(key, {GARBAGE: 0, "ghost": 1, "null/2/one/": 2})
    elif kind == b"hash":
        client.hset(key, mapping=dict.fromkeys(client.hkeys(key), GARBAGE) | {GARBAGE: "x"})
    elif kind == b"set":
        client.sadd(key, GARBAGE, "ghost")
    elif kind == b"list":
        client.lpush(key, GARBAGE, "ghost")
    else:
        client.set(key, GARBAGE)


def family(key):
    """The first two parts of a key's name, which all keys of one kind share."""
    return b":".join(key.split(b":")[:2])


@pytest.mark.parametrize("damage", ["another type", "garbage", "deleted"])
def test_new_calls_are_answered_whichever_key_is_corrupted(stack, damage):
    names = {b"convlens:job", b"convlens:queued", b"convlens:running", b"convlens:deadlines", b"convlens:usage"}
    corrupted = set()
    while not names <= corrupted:
        stack.submit_jobs()
        while keys := {family(key): key for key in stack.redis.scan_iter() if family(key) not in corrupted}:
            name, key = min(keys.items())
            corrupted.add(name)
            corrupt(stack.redis, key, damage)
            until(stack.is_well, SECONDS)
            if len(corrupted) % 8 == 0:
                stack.submit_jobs()
    for job in stack.submit_jobs():  # the service works as before
        assert job.result()["saliency"].shape[1:] == (224, 224)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_message_is_removed_and_the_worker_goes_on(stack, name):
    stack.redis.lpush("convlens.null", MALFORMED[name])
    assert stack.call() < SECONDS
    until(lambda: not stack.redis.exists("convlens.null"))
    assert stack.worker.poll() is None


def test_many_malformed_messages_block_no_thread_of_the_worker(stack):
    for _ in range(3):
        stack.redis.lpush("convlens.null", *MALFORMED.values())
    until(lambda: not stack.redis.exists("convlens.null"))
    time.sleep(0.6)  # all consumers are idle, so Celery itself receives the next message
    assert stack.call() < SECONDS
    assert stack.worker.poll() is None


def test_a_worker_consumes_again_though_the_bindings_of_kombu_are_corrupted(stack):
    """It binds its queues anew when it reconnects, as it does after a list of another type."""
    bindings = ["_kombu.binding.convlens.null", "_kombu.binding_permanent.convlens.null"]
    for key in (*bindings, "_kombu.binding_deadlines", "_kombu.binding.celery.pidbox"):
        stack.redis.set(key, "x")
    time.sleep(0.6)  # all consumers are idle, so Celery itself meets the list
    stack.redis.delete("convlens.null")
    stack.redis.set("convlens.null", "x")
    until(stack.is_well, SECONDS)
    until(lambda: all(stack.redis.type(key) != b"string" for key in bindings))
    time.sleep(0.6)  # as above
    assert stack.call() < SECONDS
    assert stack.worker.poll() is None


@pytest.mark.parametrize("name", ["convlens.null", "convlens.slow/many"])
def test_a_message_list_of_another_type_is_replaced(stack, name):
    time.sleep(0.6)  # all consumers are idle, so Celery itself receives the next message
    stack.redis.delete(name)
    stack.redis.set(name, "x")
    until(lambda: stack.redis.type(name) != b"string")
    assert stack.is_well()


@pytest.mark.parametrize("channel", ["convlens:notices", "convlens:ended"])
def test_subscribers_continue_after_malformed_notices(stack, channel):
    for notice in (
        b"", b" ", GARBAGE, b"\xff\xfe", b"id", b"id x", b"id 99", b"id 3", b"id 3 r x y z", b"a b c d e f g",
    ):  # fmt: skip
        stack.redis.publish(channel, notice)
    # without notices, a waiting call would poll the record once a second
    assert min(stack.call() for _ in range(5)) < 0.9


def test_a_caller_gets_its_result_after_malformed_notices_of_its_job(stack):
    job = stack.client.submit(PHOTO, [Saliency()], model="slow", fresh=True)
    for notice in ("3", "3 x", "3 a b c d e f", "4", "5", "99"):
        stack.redis.publish("convlens:notices", f"{job.id} {notice}")
    assert job.result()["saliency"].shape[0] == 1


def test_consumers_continue_after_malformed_messages_in_their_channel(stack):
    for message in (b"", GARBAGE, b"unknown", b"a b c d"):
        assert stack.redis.publish("convlens:new-flows", message) == 1
    assert stack.call() < SECONDS


def test_invalid_payload_names_are_set_aside_and_the_valid_ones_collected(stack):
    job = stack.client.submit(PHOTO, [Saliency()], model="null", fresh=True)
    job.result()
    names = (b"../../etc/passwd", GARBAGE, b"", b"a/b", b"x" * 300, b".")
    stack.redis.rpush("convlens:garbage", *names)
    job.delete()
    until(lambda: not stack.redis.exists("convlens:garbage"))
    until(lambda: any(b"etc/passwd" in entry for entry in stack.poisoned()))
    until(lambda: job.id not in {status.id for status in stack.client.jobs()})
    assert stack.is_well()


DAMAGES = [
    ("images", "nonsense"), ("images", '[["d", "../x", 0, 1]]'), ("images", "5"), ("images", '[["d", "gone", 0, 1]]'),
    ("spec", GARBAGE), ("cost", "x"), ("attempts", "x"), ("priority", "9"), ("deadline", "x"), ("count", GARBAGE),
    ("model", GARBAGE), ("reserved", "x"), ("fingerprint", GARBAGE), ("created", "x"),
]  # fmt: skip


def test_a_damaged_record_ends_its_own_job_only(stack):
    photos = np.random.default_rng(5).integers(0, 256, (2 * len(DAMAGES), 32, 32, 3), np.uint8)
    stack.worker.send_signal(signal.SIGSTOP)  # so that none of them is claimed yet
    try:
        jobs = [stack.client.submit(photo, [Saliency()], model="null", timeout=SECONDS) for photo in photos]
        for job, (field, value) in zip(jobs[::2], DAMAGES, strict=True):
            stack.redis.hset(f"convlens:job:{job.id}", field, value)
    finally:
        stack.worker.send_signal(signal.SIGCONT)
    for job in jobs[1::2]:
        assert job.result()["saliency"].shape[0] == 1
    for job, (field, _) in zip(jobs[::2], DAMAGES, strict=True):
        with contextlib.suppress(JobFailed, NotFound):
            job.result()
            assert field in {"reserved", "fingerprint"}  # the only fields that a result does not depend on
    assert stack.is_well()


def test_jobs_succeed_after_every_index_of_them_was_lost(stack):
    stack.worker.send_signal(signal.SIGSTOP)  # so that none of them is claimed yet
    try:
        photos = np.random.default_rng(6).integers(0, 256, (4, 32, 32, 3), np.uint8)
        jobs = [stack.client.submit(photo, [Saliency()], model="null", fresh=True) for photo in photos]
        for index in ("queued:null/*", "flows:null", "deadlines", "running", "queues", "tags:null"):
            for key in stack.redis.keys(f"convlens:{index}"):
                stack.redis.delete(key)
    finally:
        stack.worker.send_signal(signal.SIGCONT)
    for job in jobs:
        assert job.result(timeout=SECONDS)["saliency"].shape[0] == 1
    for job in jobs:
        until(lambda job=job: stack.redis.zscore("convlens:kept", job.id))


def test_ids_without_a_record_are_removed_from_every_index(stack):
    ghost = str(uuid.uuid4())
    past = time.time() * 1000 - 1
    for index in ("running", "deadlines", "kept", "tombstones", "answered", "results"):
        stack.redis.zadd(f"convlens:{index}", {ghost: past})
    stack.redis.zadd("convlens:queued:null/2/one/", {ghost: 0})
    stack.redis.zadd("convlens:flows:null", {"null/2/one/": 0})
    stack.redis.sadd("convlens:queues", "null", "unknown", GARBAGE)
    until(lambda: not stack.redis.sismember("convlens:queues", "unknown"))
    for index in ("running", "deadlines", "kept", "tombstones", "answered", "results", "queued:null/2/one/"):
        until(lambda index=index: stack.redis.zscore(f"convlens:{index}", ghost) is None)
    assert not stack.redis.exists(f"convlens:job:{ghost}")
    assert stack.is_well()


def test_unreadable_model_cards_hide_no_other_model(stack):
    stack.redis.zadd("convlens:pools", {"ghost": time.time() + 60, GARBAGE: time.time() + 60})
    stack.redis.zadd("convlens:serving:ghost", {"w": time.time() + 60})
    stack.redis.set("convlens:card:ghost", GARBAGE, ex=60)
    stack.redis.zadd("convlens:refused", {GARBAGE: time.time() + 60})
    time.sleep(1.1)  # longer than the server caches model cards
    assert {model.name for model in stack.client.models()} == {"null", "slow"}
    assert stack.is_well()
    until(lambda: stack.redis.zscore("convlens:refused", GARBAGE) is None)


def test_expired_payloads_are_deleted_in_spite_of_a_foreign_folder(stack):
    (stack.folder / "lost+found").mkdir()
    old = stack.folder / uuid.uuid4().hex
    old.write_bytes(b"x")
    old.chmod(0o600)
    os.utime(old, (1, 1))
    until(lambda: not old.exists())
    assert stack.is_well()


def test_a_reconciler_lock_without_an_expiry_is_replaced(stack):
    stack.redis.set("convlens:reconciler", "unknown")
    until(lambda: stack.redis.get("convlens:reconciler") != b"unknown")


def test_at_most_100_entries_that_were_set_aside_are_kept(stack):
    for number in range(150):
        stack.redis.rpush("convlens:garbage", f"no/name/{number}")
    until(lambda: not stack.redis.exists("convlens:garbage"))
    until(lambda: any(b"no/name" in entry for entry in stack.poisoned()))
    assert len(stack.poisoned()) <= 100
