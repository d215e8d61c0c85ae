"""The life of a job on the fake server and on a real one: states, ends, lists, deletion."""

from __future__ import annotations

import time

import grpc
import numpy as np
import pytest
from processes import until

from convlens.client import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    GradCAM,
    JobState,
    NotFound,
)
from convlens.client.stubs import Stubs
from convlens.v1 import job_pb2, spec_pb2, tensors, visualization_pb2

PHOTO = np.random.default_rng(7).integers(0, 256, (16, 12, 3), np.uint8)


def submit(client, **options):
    """Submit a job of the slow model that no earlier result answers."""
    return client.submit(PHOTO, [GradCAM()], model="other", fresh=True, **options)


def test_a_job_is_queued_runs_and_succeeds(slow_client):
    job = submit(slow_client, priority="high")
    states = [status.state for status in job.watch()]
    assert states == sorted(states)
    assert set(states) <= {JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED}
    assert states[-1] is JobState.SUCCEEDED
    status = job.status()
    assert (status.id, status.model, status.images, status.priority) == (job.id, "other", 1, "high")
    assert (status.attempts, status.queue_position, status.error, status.cached) == (1, None, None, False)
    assert (status.result_bytes, status.result_expired, status.request_id) == (14 * 14 * 4, False, job.request_id)
    assert status.create_time <= status.start_time <= status.end_time < status.deadline
    assert status.end_time < status.expire_time
    assert job.result()["grad_cam"].shape == (1, 14, 14)
    assert slow_client.job(job.id).result().images == ()


def test_an_answered_job_was_never_attempted(client):
    first = client.submit(PHOTO, [GradCAM()])
    first.wait()
    status = client.submit(PHOTO, [GradCAM()]).wait()
    assert (status.state, status.cached, status.attempts, status.start_time) == (JobState.SUCCEEDED, True, 0, None)


def test_a_job_under_way_can_be_cancelled_but_not_deleted_or_read(slow_client):
    job = submit(slow_client)
    with pytest.raises(DeadlineExceeded) as late:
        job.wait(0)
    assert (late.value.reason, late.value.job_id) == ("WAIT_TIMEOUT", job.id)
    with pytest.raises(FailedPrecondition) as refused:
        job.delete()
    assert refused.value.reason == "JOB_NOT_ENDED"
    status = job.cancel()
    assert (status.state, status.error.reason, status.result_bytes) == (JobState.CANCELLED, "CANCELLED", 0)
    with pytest.raises(Cancelled) as ended:
        job.result()
    assert (ended.value.reason, ended.value.job_id) == ("CANCELLED", job.id)
    assert job.cancel().state is JobState.CANCELLED
    job.delete()
    with pytest.raises(NotFound) as unknown:
        job.status()
    assert (unknown.value.reason, unknown.value.job_id) == ("JOB_UNKNOWN", job.id)


def test_a_result_cannot_be_read_before_the_end(slow_client, targets):
    job = submit(slow_client)
    with grpc.insecure_channel(targets[1]) as channel, pytest.raises(grpc.RpcError) as refused:
        list(Stubs(channel).jobs.ReadJobResult(job_pb2.ReadJobResultRequest(id=job.id)))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    job.cancel()


def test_a_job_ends_at_its_deadline(slow_client):
    job = submit(slow_client, timeout=0.2)
    status = job.wait()
    assert (status.state, status.error.reason) == (JobState.EXPIRED, "DEADLINE_EXCEEDED")
    with pytest.raises(DeadlineExceeded, match="the deadline passed while the job was") as ended:
        job.result()
    assert (ended.value.reason, ended.value.job_id) == ("DEADLINE_EXCEEDED", job.id)
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        slow_client.grad_cam(PHOTO, model="other", fresh=True, timeout=0.2)
    assert time.monotonic() - start < 5


def test_a_call_that_goes_away_cancels_its_job(targets, slow_client):
    spec = spec_pb2.JobSpec(
        images=[spec_pb2.Image(pixels=tensors.encode(PHOTO))], visualizations=[GradCAM().message()], model="other",
        fresh=True,
    )  # fmt: skip
    with grpc.insecure_channel(targets[1]) as channel:
        call = Stubs(channel).visualizations.Visualize(visualization_pb2.VisualizeRequest(spec=spec))
        job = slow_client.job(next(call).job.id)
        call.cancel()
        until(lambda: job.status().state is JobState.CANCELLED)
    assert job.status().error.reason == "ABANDONED"


def test_jobs_are_listed_newest_first_a_page_at_a_time(client, stubs):
    ids = [client.submit(PHOTO, [GradCAM()], fresh=True).id for _ in range(5)]
    for job_id in ids:
        client.job(job_id).wait()
    assert [status.id for status in client.jobs()][:5] == ids[::-1]
    assert {status.state for status in client.jobs("succeeded")} == {JobState.SUCCEEDED}
    assert not list(client.jobs("queued"))
    first = stubs.jobs.ListJobs(job_pb2.ListJobsRequest(page_size=3))
    second = stubs.jobs.ListJobs(job_pb2.ListJobsRequest(page_size=2, page_token=first.next_page_token))
    assert [job.id for job in [*first.jobs, *second.jobs]] == ids[::-1]
