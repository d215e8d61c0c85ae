"""Celery's lists: one message for each job that waits, whatever becomes of the jobs and of the messages."""

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
    """The one image of a job."""
    return [(uuid.uuid4().hex, b"image")]


def lengths(jobs, pool="m"):
    """Of a pool's lists, by kind, without those that are empty."""
    sizes = {kind: jobs.queue.redis.llen(keys.messages(pool, kind)) for kind in keys.KINDS}
    return {kind: size for kind, size in sizes.items() if size}


def claim(jobs, images=1000, many=1, huge=1, permit=None):
    return jobs.queue.claim("m", "w1", images, many, huge, permit=permit).jobs


def test_each_waiting_job_is_a_celery_message_with_its_id(jobs):
    records = [jobs.submit() for _ in range(3)]
    messages = [json.loads(it) for it in jobs.queue.redis.lrange("convlens.m", 0, -1)]
    assert [it["headers"]["id"] for it in messages] == [it.id for it in reversed(records)]
    assert {it["headers"]["task"] for it in messages} == {"convlens.visualize"}
    assert [json.loads(it["body"])[0] for it in messages] == [[it.id] for it in reversed(records)]


def test_jobs_of_many_passes_and_huge_ones_have_lists_of_their_own(jobs):
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
    assert len(claim(jobs, 2, permit="")) == 2  # one of whose messages was popped before
    assert lengths(jobs) == {"": 1}


@pytest.mark.parametrize("left", [0, 1])
def test_a_message_that_was_not_used_goes_back_while_a_job_waits(jobs, left):
    for _ in range(left):
        jobs.submit()
    jobs.queue.redis.lpush("convlens.m", "another")
    jobs.queue.next_message("m", [""], 1)
    claim(jobs, 0, 0, 0, permit="")
    assert lengths(jobs).get("", 0) in ({2, 3} if left else {0})  # 3: sent twice, and the extra message does no harm


def test_what_ends_unclaimed_takes_its_message_away(jobs):
    cancelled, expired, waiting = jobs.submit(), jobs.submit(timeout=0.1), jobs.submit()
    jobs.queue.cancel(cancelled.id)
    until(lambda: jobs.reconcile() == {} and jobs.get(expired).state is State.EXPIRED)
    assert lengths(jobs) == {"": 1}
    jobs.queue.cancel(waiting.id)
    assert lengths(jobs) == {}


def test_of_equal_jobs_the_one_that_is_computed_has_a_message(jobs):
    first, second = (jobs.submit(images=[("digest", b"image")], cost=1, fingerprint="same") for _ in range(2))
    assert second.leader == first.id
    assert lengths(jobs) == {"": 1}
    jobs.queue.cancel(first.id)
    assert lengths(jobs) == {"": 1}
    assert [it.record.id for it in claim(jobs)] == [second.id]
    assert lengths(jobs) == {}


def test_a_job_that_is_given_back_has_a_message_again(jobs):
    jobs.submit()
    (claimed,) = claim(jobs)
    assert lengths(jobs) == {}
    assert jobs.queue.release(claimed)
    assert lengths(jobs) == {"": 1}


def test_the_reconciler_makes_the_lists_as_long_as_the_queues(jobs):
    for cost in (2, 2, 50):
        jobs.submit(cost=cost)
    jobs.queue.redis.delete("convlens.m")
    jobs.queue.redis.rpush("convlens.m/many", "one", "too many")
    assert jobs.reconcile() == {"m": 2}
    assert lengths(jobs) == {"": 2, "many": 1}
    assert jobs.reconcile() == {}
    claim(jobs)
    jobs.queue.redis.rpush("convlens.m", "nobody's")
    assert jobs.reconcile() == {}
    assert lengths(jobs) == {}


def test_who_waits_for_a_message_is_given_the_next_one(jobs):
    assert jobs.queue.next_message("m", ["", "huge"], 0.05) is None
    timer = threading.Timer(0.1, lambda: jobs.submit(pixels=64_000_000, cost=6))
    timer.start()
    assert jobs.queue.next_message("m", ["", "huge"], 10) == "huge"
    timer.join()
    jobs.submit(cost=50)
    assert jobs.queue.next_message("m", ["", "huge"], 0.05) is None  # nobody has room for many passes


def test_workers_are_notified_of_a_flow_that_comes_while_others_wait(jobs):
    pools = []
    subscriber = Subscriber(jobs.queue.redis, keys.NEW_FLOWS, pools.extend)
    subscriber.start()
    try:
        until(lambda: jobs.queue.redis.publish(keys.NEW_FLOWS, "nobody"))
        for _ in range(3):
            jobs.submit(tenant="flood")
        jobs.submit(tenant="one")
        until(lambda: "m" in pools)
        assert pools.count("m") == 1
    finally:
        subscriber.stop()


def test_ten_thousand_jobs_that_wait_are_ten_thousand_messages(redis_url):
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
