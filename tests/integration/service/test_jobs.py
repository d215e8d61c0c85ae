"""The life cycle of a job as callers see it: watched, listed, read in parts, cancelled, expired, deleted."""

from __future__ import annotations

import itertools
import threading
import uuid

import grpc
import numpy as np
import pytest
from processes import running, until

from convlens.client import (
    Activations,
    Cancelled,
    Client,
    DeadlineExceeded,
    FailedPrecondition,
    GradCAM,
    NotFound,
    Occlusion,
    Saliency,
)  # fmt: skip
from convlens.client.stubs import Stubs
from convlens.v1 import job_pb2, spec_pb2, tensors, visualization_pb2

IMAGE = np.arange(224 * 224 * 3, dtype=np.uint32).astype(np.uint8).reshape(224, 224, 3)
SPEC = spec_pb2.JobSpec(
    model="null",
    images=[spec_pb2.Image(pixels=tensors.encode(IMAGE[:16, :16].copy()))],
    visualizations=[spec_pb2.Visualization(saliency=spec_pb2.Saliency())],
    fresh=True,
)
STATES = ("QUEUED", "RUNNING", "SUCCEEDED", "CANCELLED", "EXPIRED")
STATE = {state: job_pb2.JobState.Value(f"JOB_STATE_{state}") for state in STATES}


@pytest.fixture(scope="module")
def slow(tmp_path_factory, valkey):
    """The target of a service whose device takes half a second for each image, so that every state lasts a while."""
    with running(tmp_path_factory.mktemp("slow"), valkey, result_ttl=2, tombstone_ttl=2) as service:
        service.worker("null=null,device_ms=500+0", flags=("--max-batch-size", "1", "--consumers", "1"))
        yield service.server()[1]


@pytest.fixture
def slow_client(slow):
    with Client(slow, timeout=60) as client:
        yield client


def test_watching_a_job_shows_every_state_and_a_queued_job_has_its_position(slow_client):
    first, *others, last = [slow_client.submit(IMAGE, [GradCAM()], fresh=True) for _ in range(4)]
    assert last.status().queue_position >= 1
    states = [job.state for job in last.watch()]
    assert states == [STATE["QUEUED"], STATE["RUNNING"], STATE["SUCCEEDED"]]
    assert last.status().queue_position is None
    assert all(job.wait().state == STATE["SUCCEEDED"] for job in (first, *others))


def test_a_multi_pass_job_reports_progress_and_can_be_cancelled_while_it_runs(slow_client):
    job = slow_client.submit(IMAGE, [Occlusion(112, 112)])
    progress = [status.progress for status in job.watch()]
    assert progress == sorted(progress)
    assert progress[-1] == 1
    assert any(0 < share < 1 for share in progress)
    long_job = slow_client.submit(IMAGE, [Occlusion(16, 16)])
    until(lambda: long_job.status().progress > 0)
    assert long_job.cancel().state == STATE["CANCELLED"]
    assert slow_client.grad_cam(IMAGE, timeout=10)["grad_cam"].shape == (1, 14, 14)


def test_a_call_reports_the_passes_of_its_job_that_are_done(slow_client):
    steps = []
    slow_client.occlusion(IMAGE[:, ::-1].copy(), patch=112, stride=56, progress=steps.append)
    shares = [step.fraction for step in steps]
    assert (shares[0], shares[-1]) == (0, 1)
    assert len({share for share in shares if 0 < share < 1}) >= 2
    assert {step.total for step in steps} == {1}


def test_watching_a_coalesced_job_shows_the_progress_of_the_equal_one(slow_client):
    primary, coalesced = (slow_client.submit(IMAGE[::-1].copy(), [Occlusion(112, 112)]) for _ in range(2))
    statuses = list(coalesced.watch())
    states = [state for state, _ in itertools.groupby(status.state for status in statuses)]
    assert states[-2:] == [STATE["RUNNING"], STATE["SUCCEEDED"]]
    assert any(0 < status.progress < 1 for status in statuses)
    assert statuses[-1].cached
    assert not primary.status().cached


def test_wait_ends_at_its_timeout(slow_client):
    jobs = [slow_client.submit(IMAGE, [GradCAM()], fresh=True) for _ in range(3)]
    with pytest.raises(DeadlineExceeded, match=r"had not ended after 0\.2 s"):
        jobs[-1].wait(timeout=0.2)
    with pytest.raises(FailedPrecondition):
        jobs[-1].delete()
    assert jobs[-1].cancel().state == STATE["CANCELLED"]
    with pytest.raises(Cancelled):
        jobs[-1].result()
    for job in jobs[:-1]:
        job.wait()


def test_a_deadline_ends_a_queued_job_and_a_call(slow_client):
    blocking = [slow_client.submit(IMAGE, [GradCAM()], fresh=True) for _ in range(3)]
    job = slow_client.submit(IMAGE, [GradCAM()], timeout=0.4, fresh=True)
    with pytest.raises(DeadlineExceeded):
        slow_client.grad_cam(IMAGE, timeout=0.3, fresh=True)
    assert job.wait().state == STATE["EXPIRED"]
    with pytest.raises(DeadlineExceeded, match="deadline passed"):
        job.result()
    for blocking_job in blocking:
        blocking_job.wait()


def _visualize(stubs, request_id=""):
    """Begin a call; return it and the id of its job."""
    request = visualization_pb2.VisualizeRequest(spec=SPEC, request_id=request_id)
    call = stubs.visualizations.Visualize(request)
    return call, next(call).job.id


def test_a_cancelled_call_cancels_its_job_unless_another_caller_waits(slow, slow_client):
    with grpc.insecure_channel(slow) as channel:
        stubs = Stubs(channel)
        blocking = [slow_client.submit(IMAGE, [GradCAM()], fresh=True) for _ in range(3)]
        alone, alone_id = _visualize(stubs)
        first, shared_id = _visualize(stubs, "0b7a1c9e-0000-4000-8000-000000000001")
        second, same_id = _visualize(stubs, "0b7a1c9e-0000-4000-8000-000000000001")
        watched, watched_id = _visualize(stubs)
        watcher = slow_client.job(watched_id)
        statuses = []
        thread = threading.Thread(target=lambda: statuses.append(watcher.wait()))
        thread.start()
        assert same_id == shared_id
        for call in (alone, first):
            call.cancel()
        until(lambda: slow_client.job(alone_id).status().state == STATE["CANCELLED"])
        assert slow_client.job(alone_id).status().error.reason == "ABANDONED"
        assert [part.WhichOneof("part") for part in second] == ["header"]
        assert [part.WhichOneof("part") for part in watched] == ["header"]
        thread.join(30)
        assert statuses[0].state == STATE["SUCCEEDED"]
        for job in blocking:
            job.wait()


def test_a_submitted_job_outlives_its_callers_and_an_abandoned_one_can_be_repeated(slow, slow_client):
    with grpc.insecure_channel(slow) as channel:
        stubs = Stubs(channel)
        blocking = [slow_client.submit(IMAGE, [GradCAM()], fresh=True) for _ in range(2)]
        kept_request, abandoned_request = str(uuid.uuid4()), str(uuid.uuid4())
        submitted = stubs.jobs.SubmitJob(job_pb2.SubmitJobRequest(spec=SPEC, request_id=kept_request)).job
        kept, kept_id = _visualize(stubs, kept_request)
        abandoned, abandoned_id = _visualize(stubs, abandoned_request)
        assert kept_id == submitted.id
        for call in (kept, abandoned):
            call.cancel()
        until(lambda: slow_client.job(abandoned_id).status().state == STATE["CANCELLED"])
        repeated, repeated_id = _visualize(stubs, abandoned_request)
        assert repeated_id == abandoned_id
        assert next(repeated).WhichOneof("part") == "header"
        assert slow_client.job(kept_id).wait().state == STATE["SUCCEEDED"]
        for job in blocking:
            job.wait()


def test_an_expired_result_is_reported_until_the_job_is_forgotten(slow_client):
    job = slow_client.submit(IMAGE, [GradCAM()], fresh=True)
    assert job.result()["grad_cam"].any() == False  # noqa: E712 - a NumPy bool
    until(lambda: job.status().result_expired)
    with pytest.raises(NotFound) as caught:
        job.result()
    assert caught.value.reason == "RESULT_EXPIRED"
    deleted = slow_client.submit(IMAGE, [GradCAM()], fresh=True)
    deleted.wait()
    deleted.delete()
    with pytest.raises(NotFound) as caught:
        deleted.status()
    assert caught.value.reason == "JOB_UNKNOWN"

    def reason():
        try:
            job.status()
        except NotFound as error:
            return error.reason

    assert until(reason) == "JOB_UNKNOWN"


def test_jobs_are_listed_newest_first_a_page_at_a_time(client, stubs):
    ids = [client.submit(IMAGE, [GradCAM()], fresh=True).id for _ in range(7)]
    pages, token = [], ""
    while True:
        page = stubs.jobs.ListJobs(job_pb2.ListJobsRequest(page_size=3, page_token=token))
        pages.append([job.id for job in page.jobs])
        token = page.next_page_token
        if not token or set(ids) <= {*itertools.chain(*pages)}:
            break
    assert all(len(page) <= 3 for page in pages)
    assert [*itertools.chain(*pages)][:7] == ids[::-1]
    for job_id in ids:
        client.job(job_id).wait()
    assert {job.state for job in client.jobs("succeeded")} == {STATE["SUCCEEDED"]}
    assert not list(client.jobs("queued"))


def test_a_result_can_be_read_from_any_offset(client, stubs):
    job = client.submit(IMAGE, [Saliency(), Activations("block1_conv1")])
    total = job.wait().result_bytes
    assert total == 4 * (224 * 224 + 224 * 224 * 64)

    def read(offset):
        parts = list(stubs.jobs.ReadJobResult(job_pb2.ReadJobResultRequest(id=job.id, offset=offset)))
        assert parts[0].header.total_bytes == total
        offsets = [part.chunk.offset for part in parts[1:]]
        assert offsets == sorted(set(offsets))
        return b"".join(part.chunk.data for part in parts[1:])

    whole = read(0)
    assert len(whole) == total
    for offset in (1, 1 << 20, total - 3, total):
        assert read(offset) == whole[offset:]
    with pytest.raises(grpc.RpcError) as refused:
        read(total + 1)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
