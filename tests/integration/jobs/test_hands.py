"""Who is woken for a job: a message when few hands are awake, a word to one that waits, nobody when all look again."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid

import pytest
from processes import until

from convlens.jobs.queue import keys
from convlens.jobs.queue.hands import Hands, Then


def announced(jobs, **changes) -> bool:
    """Queues a job; True when a message is to wake a hand for it."""
    return jobs.announced(jobs.new(**changes))[1]


def single():
    """The one image of a job."""
    return [(uuid.uuid4().hex, b"image")]


def look(jobs, hand, then, images=1000):
    return jobs.ledger.claim("m", "w1", images, hand, then).jobs


@contextlib.contextmanager
def listening(jobs, most):
    """A worker's hands once they hear what they are told: all of them, each, and whether one was urged."""
    mine = Hands(jobs.ledger.redis, most)
    mine.start()
    urged = threading.Event()
    with contextlib.ExitStack() as stack:
        hands = [stack.enter_context(mine.woken("m", urged.set)) for _ in range(most)]
        until(lambda: jobs.ledger.redis.publish(keys.wake(hands[0].name.split(":")[0]), "nobody"))
        yield mine, hands, urged
        mine.stop()
        assert hands[0].stopping
    mine.close()


def test_messages_wake_as_many_hands_as_there_may_be(jobs):
    assert [announced(jobs, hands=2) for _ in range(4)] == [True, True, False, False]
    assert announced(jobs, hands=3)
    assert announced(jobs, model="other", hands=1)


def test_messages_that_nobody_took_yet_count(jobs):
    jobs.ledger.redis.lpush(keys.messages("m"), "message")
    assert not announced(jobs, hands=1)
    jobs.ledger.redis.delete(keys.messages("m"))
    assert announced(jobs, hands=1)


@pytest.mark.parametrize("then", [Then.WORK, Then.WAIT])
def test_a_hand_that_will_look_again_needs_no_message(jobs, then):
    look(jobs, "w:1", then)
    assert not announced(jobs, hands=1)


def test_a_hand_that_rests_does(jobs):
    look(jobs, "w:1", Then.WAIT)
    look(jobs, "w:1", Then.REST)
    assert announced(jobs, hands=1)


def test_a_hand_that_found_something_does_not_rest(jobs):
    jobs.submit()
    assert look(jobs, "w:1", Then.REST)
    assert not announced(jobs, hands=1)


def test_one_waiting_hand_is_told_of_each_job_of_several_images(jobs):
    with listening(jobs, 2) as (mine, (first, second), urged), mine.woken("m", urged.set) as third:
        assert third is None
        for hand in (first, second):
            look(jobs, hand.name, Then.WAIT)
        assert [announced(jobs, hands=9) for _ in range(3)] == [False, False, True]  # the third finds nobody waiting
        until(first.told)
        until(second.told)
        assert not urged.is_set()


@pytest.mark.parametrize(("images", "taken"), [(1, 1), (0, 0), (9, 3)])
def test_one_hand_is_told_of_single_images_and_tells_another_of_those_it_leaves(jobs, images, taken, monkeypatch):
    monkeypatch.setattr("convlens.jobs.queue.ledger.LINGER", 30)  # so long are they believed to wait
    with listening(jobs, 2) as (_, hands, _):
        for hand in hands:
            look(jobs, hand.name, Then.WAIT)
        assert [announced(jobs, hands=2, images=single(), cost=1) for _ in range(3)] == [False] * 3
        told = until(lambda: next((hand for hand in hands if hand.told()), None))
        (untold,) = {*hands} - {told}
        assert not untold.told()
        assert len(look(jobs, told.name, Then.WORK, images)) == taken
        if taken < 3:
            until(untold.told)
        else:
            assert not untold.told()


def test_a_hand_that_has_a_job_of_many_passes_is_told_of_others_only(jobs):
    jobs.ledger.claim("m", "w1", 1000, "w:1", Then.WAIT, many=0)
    assert announced(jobs, cost=50, hands=2)
    assert not announced(jobs, hands=9)
    assert announced(jobs, hands=9)


def test_each_job_of_many_passes_is_told_to_a_hand_of_its_own(jobs):
    for hand in ("w:1", "w:2"):
        look(jobs, hand, Then.WAIT)
    assert [announced(jobs, hands=9, images=single(), cost=50) for _ in range(3)] == [False, False, True]


def test_what_is_left_is_told_to_a_hand_that_may_take_it(jobs, monkeypatch):
    monkeypatch.setattr("convlens.jobs.queue.ledger.LINGER", 30)  # so long are they believed to wait
    jobs.ledger.claim("m", "w1", 1000, "busy:1", Then.WAIT, many=0)
    look(jobs, "free:1", Then.WAIT)
    jobs.ledger.redis.zrem(f"{keys.PREFIX}idle:m:many", "free:1")  # as if it had been told
    jobs.submit(images=single(), cost=50)
    jobs.ledger.redis.zadd(f"{keys.PREFIX}idle:m:many", {"free:1": 1e15})
    assert look(jobs, "w:1", Then.WORK, images=0) == []
    idle = {kind: jobs.ledger.redis.zcard(f"{keys.PREFIX}idle:m:{kind}") for kind in ("one", "many")}
    assert idle == {"one": 1, "many": 0}


def test_a_worker_is_urged_to_take_the_job_of_who_comes_while_others_wait(jobs):
    with listening(jobs, 1) as (_, (hand,), urged):
        for _ in range(3):
            jobs.submit(tenant="flood")
        look(jobs, hand.name, Then.WORK, images=1)
        assert not urged.wait(0.1)
        one = jobs.submit(tenant="one")
        assert urged.wait(60)
        assert [it.record.id for it in look(jobs, hand.name, Then.WORK, images=1)] == [one.id]


def test_a_hand_that_died_is_not_counted_on_for_long(jobs, monkeypatch):
    monkeypatch.setattr("convlens.jobs.queue.ledger.AWAKE", 0.3)
    look(jobs, "dead:1", Then.WORK)
    assert not announced(jobs, hands=1)
    assert jobs.reconcile() == {}
    until(lambda: jobs.reconcile() == {"m": 1})


def test_a_clock_that_went_back_leaves_no_hand_believed_for_hours(jobs):
    hours = int(time.time() * 1000) + 7_200_000
    jobs.ledger.redis.zadd("convlens:awake:m", {f"hand{n}": hours for n in range(4)})
    jobs.submit()
    time.sleep(jobs.ledger.settings.redelivery_grace + 0.1)  # it may only be slow before
    assert jobs.reconcile() == {"m": 1}
