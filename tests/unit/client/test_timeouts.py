"""Timeouts of callers: which values are accepted, and which are refused by the name of their field."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest

from convlens.client import AsyncClient, Client, GradCAM, InvalidArgument
from convlens.client.connection import Connection
from convlens.client.request import job_time_limit
from convlens.client.retry import RetryPolicy
from convlens.client.timeouts import DEFAULT_TIMEOUT, checked_timeout

PHOTO = np.zeros((2, 2, 3), np.uint8)
INVALID = [
    0,
    0.0,
    -1,
    -(10**400),
    -0.5,
    -math.inf,
    math.nan,
    True,
    "5",
    "inf",
    [5],
    np.bool_(1),
    np.array([1.0]),
    Decimal(5),
    5j,
]


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [(5, 5.0), (0.001, 0.001), (np.float32(0.5), 0.5), (np.int64(3), 3.0), (None, 7.0), (math.inf, math.inf),
     (1e300, math.inf), (1 << 80, math.inf), (10**400, math.inf)],
)  # fmt: skip
def test_numbers_above_0_are_seconds_inf_is_no_limit_and_none_the_default(timeout, seconds):
    assert checked_timeout(timeout, 7.0) == seconds


@pytest.mark.parametrize("timeout", INVALID, ids=repr)
def test_an_invalid_timeout_is_refused_by_the_name_of_its_field(timeout):
    with pytest.raises(
        InvalidArgument, match=r"patience is .*; allowed: seconds above 0, math.inf for no lim"
    ) as caught:
        checked_timeout(timeout, 7.0, "patience")
    assert caught.value.field == "patience"


def test_0_is_accepted_where_it_means_no_waiting():
    assert checked_timeout(0, 7.0, or_zero=True) == 0
    with pytest.raises(InvalidArgument, match="0 for the state by now"):
        checked_timeout(-1, 7.0, or_zero=True)


CALLS = {
    "timeout of the client": lambda kind, time: kind("localhost:1", timeout=time),
    "connect_timeout of the client": lambda kind, time: kind("localhost:1", connect_timeout=time),
    "visualize": lambda kind, time: kind("localhost:1").visualize(PHOTO, [GradCAM()], timeout=time),
    "saliency": lambda kind, time: kind("localhost:1").saliency(PHOTO, timeout=time),
    "submit": lambda kind, time: kind("localhost:1").submit(PHOTO, [GradCAM()], timeout=time),
    "map": lambda kind, time: kind("localhost:1").map([PHOTO], [GradCAM()], timeout=time),
}
WAITS = {
    "watch": lambda kind, time: kind("localhost:1").job("ab").watch(time),
    "wait": lambda kind, time: kind("localhost:1").job("ab").wait(time),
    "result": lambda kind, time: kind("localhost:1").job("ab").result(time),
}


@pytest.mark.parametrize("call", CALLS | WAITS)
@pytest.mark.parametrize("time", [0, -1, math.nan, "5"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_every_timeout_is_validated_before_anything_is_sent(kind, call, time):
    if time == 0 and call in WAITS:
        return
    with pytest.raises(InvalidArgument, match=f"timeout is {time}" if time != "5" else "timeout is '5'") as caught:
        await (CALLS | WAITS)[call](kind, time)
    assert caught.value.field == ("connect_timeout" if "connect" in call else "timeout")


def test_without_a_limit_a_call_has_no_deadline():
    connection = Connection("localhost:1", None, None)
    assert RetryPolicy(connection, math.inf).remaining() is None
    assert RetryPolicy(connection, 5.0).remaining() == pytest.approx(5.0, abs=0.5)


def test_a_job_has_a_time_limit_where_the_servers_default_is_shorter():
    assert job_time_limit(DEFAULT_TIMEOUT, 3600.0) is None
    assert job_time_limit(600.0, 3600.0) == 600.0
    assert job_time_limit(math.inf, 3600.0) == 3600.0
    assert job_time_limit(math.inf, 0.0) is None
