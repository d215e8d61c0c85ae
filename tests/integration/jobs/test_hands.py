"""Who is woken for a job: a message when few hands are awake, a word to one that waits, nobody when all look again."""

from __future__ import annotations

import time

import pytest
from processes import until

from convlens.jobs import keys
from convlens.jobs.hands import Hands, Then


def announced(jobs, **changes) -> bool:
    """Queues a job; True when a message is to wake a hand for it."""
    return jobs.ledger.submit(jobs.new(**changes), jobs.bounds)[1]


def look(jobs, hand, then, images=1000):
    return jobs.ledger.claim("m", "w1", images, hand, then)


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


def test_one_waiting_hand_is_told_of_each_job(jobs):
    mine = Hands(jobs.ledger.redis, 2)
    mine.start()
    with mine.woken("m") as first, mine.woken("m") as second, mine.woken("m") as third:
        assert third is None
        until(lambda: jobs.ledger.redis.publish(keys.wake(first.name.split(":")[0]), "nobody"))  # it listens
        for hand in (first, second):
            look(jobs, hand.name, Then.WAIT)
        assert [announced(jobs, hands=9) for _ in range(3)] == [False, False, True]  # the third finds nobody waiting
        assert first.told()
        assert second.told()
        mine.stop()
        assert first.stopping
    mine.close()


def test_a_hand_that_died_is_not_counted_on_for_long(jobs, monkeypatch):
    monkeypatch.setattr("convlens.jobs.ledger.AWAKE", 0.3)
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
