"""Each queued job has one Celery message in its pool's list, through every change of jobs and messages."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid

import bulk
import pytest
from processes import until

from convlens.jobs.queue import keys
from convlens.jobs.queue.record import State
from convlens.jobs.queue.subscriber import Subscriber


def single():
    """The images of a job with one image."""
    return [(uuid.uuid4().hex, b"image")]


def lengths(jobs, pool="m"):
    """The lengths of a pool's non-empty lists, by kind."""
    sizes = {kind: jobs.queue.redis.llen(keys.messages(pool, kind)) for kind in keys.KINDS}
    return {kind: size for kind, size in sizes.items() if size}


def claim(jobs, images=1000, many=1, huge=1, permit=None):
    return jobs.queue.claim("m", "w1", images, many, huge, permit=permit).jobs


def test_each_queued_job_has_a_celery_message_with_its_id(jobs):
    records = [jobs.submit() for _ in range(3)]
    ids = [record.id for record in reversed(records)]
    messages = [json.loads(data) for data in jobs.queue.redis.lrange("convlens.m", 0, -1)]
    assert [message["headers"]["id"] for message in messages] == ids
    assert {message["headers"]["task"] for message in messages} == {"convlens.visualize"}
    assert [json.loads(message["body"])[0] for message in messages] == [[job_id] for job_id in ids]


def test_multi_pass_and_huge_jobs_have_separate_lists(jobs):
    jobs.submit()
    jobs.submit(pixels=3_000_000)  # slow to decode
    jobs.submit(cost=50)
    for _ in range(2):
        jobs.submit(pixels=64_000_000, cost=6)
    assert lengths(jobs) == {"": 2, "many": 1, "huge": 2}
    assert len(claim(jobs)) == 3
    assert lengths(jobs) == {"": 1, "huge": 1}


def test_a_claim_pops_the_messages_of_the_jobs_it_takes(jobs):
    for _ in range(5):
        jobs.submit(images=single(), cost=1)
    assert len(claim(jobs, 2)) == 2
    assert lengths(jobs) == {"": 3}
    assert jobs.queue.next_message("m", keys.KINDS, 1) == ""
    assert len(claim(jobs, 2, permit="")) == 2  # next_message() has popped one of their messages
    assert lengths(jobs) == {"": 1}


@pytest.mark.parametrize("queued", [0, 1])
def test_an_unused_message_goes_back_while_a_job_is_queued(jobs, queued):
    for _ in range(queued):
        jobs.submit()
    jobs.queue.redis.lpush("convlens.m", "another")
    jobs.queue.next_message("m", [""], 1)
    claim(jobs, 0, 0, 0, permit="")
    assert lengths(jobs).get("", 0) in ({2, 3} if queued else {0})  # 3 with repeated scripts: an extra one is harmless


def test_a_job_that_ends_unclaimed_removes_its_message(jobs):
    cancelled, expired, waiting = jobs.submit(), jobs.submit(timeout=0.1), jobs.submit()
    jobs.queue.cancel(cancelled.id)
    until(lambda: jobs.reconcile() == {} and jobs.get(expired).state is State.EXPIRED)
    assert lengths(jobs) == {"": 1}
    jobs.queue.cancel(waiting.id)
    assert lengths(jobs) == {}


def test_of_equal_jobs_only_the_computed_one_has_a_message(jobs):
    first, second = (jobs.submit(images=[("digest", b"image")], cost=1, fingerprint="same") for _ in range(2))
    assert second.primary == first.id
    assert lengths(jobs) == {"": 1}
    jobs.queue.cancel(first.id)
    assert lengths(jobs) == {"": 1}
    assert [claimed.record.id for claimed in claim(jobs)] == [second.id]
    assert lengths(jobs) == {}


def test_a_released_job_has_a_message_again(jobs):
    jobs.submit()
    (claimed,) = claim(jobs)
    assert lengths(jobs) == {}
    assert jobs.queue.release(claimed)
    assert lengths(jobs) == {"": 1}


def test_the_reconciler_restores_one_message_for_each_queued_job(jobs):
    for cost in (2, 2, 50):
        jobs.submit(cost=cost)
    jobs.queue.redis.delete("convlens.m")
    jobs.queue.redis.rpush("convlens.m/many", "one", "too many")
    assert jobs.reconcile() == {"m": 2}
    assert lengths(jobs) == {"": 2, "many": 1}
    assert jobs.reconcile() == {}
    claim(jobs)
    jobs.queue.redis.rpush("convlens.m", "foreign")
    assert jobs.reconcile() == {}
    assert lengths(jobs) == {}


def test_a_consumer_that_blocks_on_the_lists_gets_the_next_message(jobs):
    assert jobs.queue.next_message("m", ["", "huge"], 0.05) is None
    timer = threading.Timer(0.1, lambda: jobs.submit(pixels=64_000_000, cost=6))
    timer.start()
    assert jobs.queue.next_message("m", ["", "huge"], 10) == "huge"
    timer.join()
    jobs.submit(cost=50)
    assert jobs.queue.next_message("m", ["", "huge"], 0.05) is None  # the list of multi-pass jobs is not among them


def test_workers_are_notified_of_a_new_flow_while_others_are_queued(jobs):
    pools = []
    subscriber = Subscriber(jobs.queue.redis, keys.NEW_FLOWS, pools.extend)
    subscriber.start()
    try:
        until(lambda: jobs.queue.redis.publish(keys.NEW_FLOWS, "other"))
        for _ in range(3):
            jobs.submit(tenant="flood")
        jobs.submit(tenant="one")
        until(lambda: "m" in pools)
        assert pools.count("m") == 1
    finally:
        subscriber.stop()


def test_ten_thousand_queued_jobs_have_ten_thousand_messages(redis_url):
    queue = bulk.open_queue(redis_url)
    bulk.submit(queue, 10_000)
    name = keys.messages(bulk.POOL)
    assert queue.redis.llen(name) == 10_000
    queue.redis.ltrim(name, 5_000, -1)
    until(lambda: not queue.reconcile())
    assert queue.redis.llen(name) == 10_000


STOCK_CELERY = """if True:
    import sys
    from celery import Celery
    app = Celery("stranger", broker=sys.argv[1])
    app.conf.update(task_ignore_result=True, task_create_missing_queues=True)
    @app.task(name="convlens.visualize")
    def visualize(job_id):
        print("job", job_id, file=sys.__stdout__, flush=True)
    app.worker_main(["worker", "--pool=solo", "--queues=convlens.m", "--loglevel=ERROR", "--without-gossip"])
"""


def test_stock_celery_consumes_the_messages(jobs, redis_url):
    records = [jobs.submit() for _ in range(3)]
    command = [sys.executable, "-c", STOCK_CELERY, redis_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as worker:
        lines = (line for line in iter(worker.stdout.readline, "") if line.startswith("job "))
        consumed = [next(lines).split()[1] for _ in records]
        worker.terminate()
    assert consumed == [record.id for record in records]
