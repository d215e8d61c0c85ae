"""Tenants see their own jobs and nobody else's: knowing an id is not enough. An admin sees all."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import uuid

import grpc
import numpy as np
import pytest
from credentials import new_token
from processes import running, until

from convlens.client import Client, GradCAM, Overloaded
from convlens.client.stubs import Stubs
from convlens.v1 import job_pb2

RANDOM = np.random.default_rng(11)
Code = grpc.StatusCode


def photo():
    """One that nobody has asked about before, so that its job is computed."""
    return RANDOM.integers(0, 256, (224, 224, 3), np.uint8)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """The tokens of two tenants and an admin, and their file."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    roles = {"acme": "submit", "globex": "submit", "operators": "admin"}
    return {tenant: new_token(file, tenant, role, "read") for tenant, role in roles.items()} | {"file": file}


@pytest.fixture(scope="module")
def target(start_service, tokens):
    service = start_service(tokens=tokens["file"])
    service.worker("null=null,device_ms=50+0")
    return service.server()[1]


@pytest.fixture
def of(target, tokens):
    """Clients of tenants, by name."""
    with contextlib.ExitStack() as stack:
        yield lambda tenant: stack.enter_context(Client(target, token=tokens[tenant], timeout=60))


@pytest.fixture
def calls(target, tokens):
    """A bare call of a job's method by a tenant: its status code, and the messages that came."""

    def call(tenant, method, request):
        with grpc.insecure_channel(target) as channel:
            metadata = [("authorization", f"Bearer {tokens[tenant]}")]
            try:
                answer = getattr(Stubs(channel).jobs, method)(request, metadata=metadata, timeout=30)
                return Code.OK, list(answer) if isinstance(answer, grpc.Call) else [answer]
            except grpc.RpcError as error:
                return error.code(), error.details()

    return call


REQUESTS = {
    "GetJob": job_pb2.GetJobRequest,
    "WatchJob": job_pb2.WatchJobRequest,
    "ReadJobResult": job_pb2.ReadJobResultRequest,
    "CancelJob": job_pb2.CancelJobRequest,
    "DeleteJob": job_pb2.DeleteJobRequest,
}


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "live"])
@pytest.mark.parametrize("method", REQUESTS)
def test_another_tenants_job_is_as_unknown_as_one_that_never_was(of, calls, method, ended):
    job = of("acme").submit(photo(), [GradCAM()])
    if ended:
        job.result()
    nobodys = calls("globex", method, REQUESTS[method](id=job.id[::-1]))
    others = calls("globex", method, REQUESTS[method](id=job.id))
    assert (nobodys[0], others[0]) == (Code.NOT_FOUND, Code.NOT_FOUND)
    assert others[1].replace(job.id, "ID") == nobodys[1].replace(job.id[::-1], "ID")
    assert job.result()["grad_cam"].shape == (1, 14, 14)  # it was neither cancelled nor deleted


@pytest.mark.parametrize("method", ["GetJob", "WatchJob", "ReadJobResult", "DeleteJob"])
@pytest.mark.parametrize("who", ["acme", "operators"])
def test_its_tenant_and_an_admin_reach_an_ended_job(of, calls, method, who):
    job = of("acme").submit(photo(), [GradCAM()])
    job.result()
    code, parts = calls(who, method, REQUESTS[method](id=job.id))
    assert code is Code.OK
    assert parts


def test_an_admin_cancels_anybodys_job(of):
    jobs = [of("acme").submit(photo(), [GradCAM()]) for _ in range(10)]
    assert of("operators").job(jobs[-1].id).cancel().state == job_pb2.JOB_STATE_CANCELLED


def test_a_list_has_ones_own_jobs_page_by_page_and_an_admins_all(of, calls):
    mine = {of("acme").submit(photo(), [GradCAM()]).id for _ in range(3)}
    theirs = {of("globex").submit(photo(), [GradCAM()]).id for _ in range(3)}
    assert mine <= {it.id for it in of("acme").jobs()}
    assert not theirs & {it.id for it in of("acme").jobs()}
    assert not mine & {it.id for it in of("globex").jobs()}
    assert mine | theirs <= {it.id for it in of("operators").jobs()}
    seen, page = set(), job_pb2.ListJobsResponse(next_page_token="")
    while True:
        _, [page] = calls("globex", "ListJobs", job_pb2.ListJobsRequest(page_size=1, page_token=page.next_page_token))
        seen |= {it.id for it in page.jobs}
        if not page.next_page_token:
            break
    assert theirs <= seen
    assert not mine & seen


def test_one_request_id_is_two_jobs_for_two_tenants(of):
    """Though they ask for different things, neither learns that the other used it."""
    same, image = str(uuid.uuid4()), photo()
    mine = of("acme").submit(image, [GradCAM()], request_id=same)
    theirs = of("globex").submit(photo(), [GradCAM()], request_id=same)
    assert mine.id != theirs.id
    assert of("acme").submit(image, [GradCAM()], request_id=same).id == mine.id


def test_nobody_learns_from_the_cache_what_another_tenant_asked(of):
    image = photo()
    of("acme").submit(image, [GradCAM()]).result()
    theirs = of("globex").submit(image, [GradCAM()])
    theirs.result()
    assert not theirs.status().cached
    again = of("acme").submit(image, [GradCAM()])
    again.result()
    assert again.status().cached


def test_a_tenant_is_held_to_its_rate_by_all_servers_together_and_the_sdk_comes_again(tmp_path, valkey, tokens):
    with running(tmp_path, valkey, tokens=tokens["file"], tenant_rate=0.5, tenant_burst=0) as service:
        service.worker("null=null")
        targets = [service.server()[1] for _ in range(2)]
        first, second = (Client(target, token=tokens["acme"], timeout=60) for target in targets)
        with first, second, Client(targets[0], token=tokens["globex"], timeout=60) as other:
            until(first.models)
            limits = first.server_info().limits
            assert (limits.tenant_rate, limits.tenant_burst) == (0.5, 0)
            image = photo()
            began = time.monotonic()
            first.submit(np.stack([image] * 2), [GradCAM()])
            with Client(targets[1], token=tokens["acme"], timeout=2) as hasty, pytest.raises(Overloaded) as refused:
                hasty.submit(image, [GradCAM()])
            assert (refused.value.reason, "tenant_rate" in str(refused.value)) == ("RATE_EXCEEDED", True)
            assert 0 < refused.value.retry_after <= 4
            other.submit(image, [GradCAM()])
            assert second.grad_cam(image)["grad_cam"].shape == (1, 14, 14)
            assert time.monotonic() - began >= 4  # two images at half of one a second


def test_a_rate_without_tenants_is_refused_at_the_start():
    command = [sys.executable, "-m", "convlens.server", "--tenant-rate", "5"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "--tenant-rate: Value error, needs tokens" in ended.stderr
