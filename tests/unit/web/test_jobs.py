"""Jobs over HTTP: submitted, listed, watched, fetched, cancelled, deleted."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from gateways import arrays, gateway, png
from processes import until

from convlens.client import Client, JobState, JobStatus, NotFound
from convlens.client.json_values import to_json_value
from convlens.client.testing import serve
from convlens.web import events as job_events

PHOTO = png()


@pytest.fixture
def sdk(target):
    """A client of the same server."""
    with Client(target) as client:
        yield client


def submit(http, photo=PHOTO, **request):
    """Submit a job of one photo."""
    return http.post("/v1/jobs", files={"image": ("a.png", photo)}, data={"request": json.dumps(request)})


def events(response):
    """The events of a stream: of each its name and data."""
    blocks = "".join(response.iter_text()).split("\n\n")
    fields = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks if block]
    return [(event["event"], json.loads(event["data"])) for event in fields if "event" in event]


def test_a_job_has_an_address_and_the_keys_of_the_sdk(http, sdk):
    response = submit(http, fresh=True, priority="low")
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["priority"] == "low"
    assert http.get(response.headers["location"]).json() == to_json_value(sdk.job(job["id"]).status())
    assert job.keys() == to_json_value(sdk.job(job["id"]).status()).keys()


def test_its_result_is_that_of_the_sdk_in_every_form(http, sdk):
    address = submit(http, visualizations=[{"type": "saliency"}]).headers["location"]
    expected = sdk.job(address.rpartition("/")[2]).result()["saliency"]
    np.testing.assert_array_equal(arrays(http.get(f"{address}/result"))["saliency"], expected)
    npz = http.get(f"{address}/result", headers={"Accept": "application/x-npz"})
    assert npz.headers["content-type"] == "application/x-npz"
    picture = http.get(f"{address}/result", headers={"Accept": "image/png"}, params={"cmap": "gray"})
    assert picture.content.startswith(b"\x89PNG")


def test_jobs_are_listed_newest_first_by_state_and_up_to_a_limit(http):
    ids = [submit(http, fresh=True).json()["id"] for _ in range(3)]
    assert [job["id"] for job in http.get("/v1/jobs", params={"limit": 2}).json()["jobs"]] == ids[:0:-1]
    assert {job["state"] for job in http.get("/v1/jobs", params={"state": "succeeded"}).json()["jobs"]} == {"succeeded"}
    assert http.get("/v1/jobs", params={"state": "failed"}).json() == {"jobs": []}
    for query, field in ({"state": "lost"}, "state"), ({"limit": 0}, "limit"), ({"limit": "many"}, "limit"):
        response = http.get("/v1/jobs", params=query)
        assert (response.status_code, response.json()["field"]) == (422, field)


def test_events_follow_a_job_to_its_end():
    with serve(delay=0.2) as target, gateway(target) as http:
        address = submit(http).headers["location"]
        with http.stream("GET", f"{address}/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            received = events(response)
    assert {name for name, _ in received} == {"job"}
    states = [job["state"] for _, job in received]
    assert states[-1] == "succeeded"
    assert states == sorted(states, key=["queued", "running", "succeeded"].index)


def test_a_client_that_leaves_ends_the_watch():
    server = serve(delay=math.inf)
    with server as target, gateway(target) as http, Client(target) as sdk:
        address = submit(http).headers["location"]
        with http.stream("GET", f"{address}/events") as response:
            parts = response.iter_text()  # kept, since a collected iterator closes the connection
            next(parts)
            (job,) = server._services.jobs.newest_first()
            until(lambda: job.waiters)
        until(lambda: not job.waiters)  # the calls that watch it
        assert not sdk.job(job.message.id).status().state.is_final


def test_a_stream_is_kept_alive_while_the_job_does_not_change(monkeypatch):
    monkeypatch.setattr(job_events, "KEEP_ALIVE_SECONDS", 0.05)
    with serve(delay=math.inf) as target, gateway(target) as http:
        address = submit(http).headers["location"]
        with http.stream("GET", f"{address}/events") as response:
            lines = (line for line in response.iter_lines() if line)
            assert next(lines) == "event: job"
            assert next(lines).startswith("data: ")
            assert next(lines).startswith(":")


async def test_a_watch_that_fails_ends_the_stream_with_its_problem():
    job = JobStatus(id="1", state=JobState.QUEUED)

    async def changes():
        yield job
        raise NotFound("the job is gone", reason="JOB_UNKNOWN", job_id="1")

    *events, last = [event async for event in job_events.job_events(job, changes())]
    assert all(event.startswith("event: job\n") for event in events)
    name, data = last.strip().split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["reason"] == "JOB_UNKNOWN"


def test_a_cancelled_job_stays_until_it_is_deleted():
    with serve(delay=math.inf) as target, gateway(target) as http:
        address = submit(http).headers["location"]
        early = http.delete(address)
        assert (early.status_code, early.json()["reason"]) == (409, "JOB_NOT_ENDED")
        assert http.post(f"{address}/cancel").json()["state"] == "cancelled"
        assert http.post(f"{address}/cancel").json()["error"]["reason"] == "CANCELLED"
        result = http.get(f"{address}/result")
        assert (result.status_code, result.json()["reason"]) == (499, "CANCELLED")
        with http.stream("GET", f"{address}/events") as response:
            assert [job["state"] for _, job in events(response)] == ["cancelled"]
        assert http.delete(address).status_code == 204
        for request in (http.get, http.delete):
            assert (request(address).status_code, request(address).json()["reason"]) == (404, "JOB_UNKNOWN")
        assert http.get(f"{address}/events").json()["reason"] == "JOB_UNKNOWN"


def test_a_caller_who_disconnects_cancels_what_it_waits_for():
    server = serve(delay=math.inf)
    with server as target, gateway(target) as http, Client(target) as sdk:
        with pytest.raises(Exception, match="timed out"):
            http.post("/v1/visualize", files={"image": ("a.png", png())}, timeout=1)
        (job,) = sdk.jobs()
        until(lambda: sdk.job(job.id).status().state.is_final)
        assert sdk.job(job.id).status().error.reason == "ABANDONED"
