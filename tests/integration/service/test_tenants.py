"""A tenant can reach only its own jobs, even if it knows the id of another; an admin can reach all jobs."""

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
    """A random photo, so that no cached result exists."""
    return RANDOM.integers(0, 256, (224, 224, 3), np.uint8)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """The tokens of two tenants and an admin by tenant, and their file."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    roles = {"acme": "submit", "globex": "submit", "operators": "admin"}
    return {tenant: new_token(file, tenant, role, "read") for tenant, role in roles.items()} | {"file": file}


@pytest.fixture(scope="module")
def target(start_service, tokens):
    service = start_service(tokens=tokens["file"])
    service.worker("null=null,device_ms=50+0")
    return service.server()[1]


@pytest.fixture
def client_of(target, tokens):
    """A function that creates a client of a tenant."""
    with contextlib.ExitStack() as stack:
        yield lambda tenant: stack.enter_context(Client(target, token=tokens[tenant], timeout=60))


@pytest.fixture
def calls(target, tokens):
    """A function that calls a method of JobService as a tenant; returns the status code and the responses."""

    def call(tenant, method, request):
        with grpc.insecure_channel(target) as channel:
            metadata = [("authorization", f"Bearer {tokens[tenant]}")]
            try:
                response = getattr(Stubs(channel).jobs, method)(request, metadata=metadata, timeout=30)
                return Code.OK, list(response) if isinstance(response, grpc.Call) else [response]
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


@pytest.mark.parametrize("has_ended", [True, False], ids=["ended", "live"])
@pytest.mark.parametrize("method", REQUESTS)
def test_another_tenants_job_is_not_found_like_an_unknown_one(client_of, calls, method, has_ended):
    job = client_of("acme").submit(photo(), [GradCAM()])
    if has_ended:
        job.result()
    unknown_code, unknown_message = calls("globex", method, REQUESTS[method](id=job.id[::-1]))
    code, message = calls("globex", method, REQUESTS[method](id=job.id))
    assert (unknown_code, code) == (Code.NOT_FOUND, Code.NOT_FOUND)
    assert message.replace(job.id, "ID") == unknown_message.replace(job.id[::-1], "ID")
    assert job.result()["grad_cam"].shape == (1, 14, 14)  # it was neither cancelled nor deleted


@pytest.mark.parametrize("method", ["GetJob", "WatchJob", "ReadJobResult", "DeleteJob"])
@pytest.mark.parametrize("tenant", ["acme", "operators"])
def test_its_tenant_and_an_admin_can_reach_an_ended_job(client_of, calls, method, tenant):
    job = client_of("acme").submit(photo(), [GradCAM()])
    job.result()
    code, responses = calls(tenant, method, REQUESTS[method](id=job.id))
    assert code is Code.OK
    assert responses


def test_an_admin_can_cancel_any_tenants_job(client_of):
    jobs = [client_of("acme").submit(photo(), [GradCAM()]) for _ in range(10)]
    assert client_of("operators").job(jobs[-1].id).cancel().state == job_pb2.JOB_STATE_CANCELLED


def test_a_tenants_list_has_its_own_jobs_and_an_admins_list_all_jobs(client_of, calls):
    acme = {client_of("acme").submit(photo(), [GradCAM()]).id for _ in range(3)}
    globex = {client_of("globex").submit(photo(), [GradCAM()]).id for _ in range(3)}

    def listed_ids(tenant):
        return {status.id for status in client_of(tenant).jobs()}

    assert acme <= listed_ids("acme")
    assert not globex & listed_ids("acme")
    assert not acme & listed_ids("globex")
    assert acme | globex <= listed_ids("operators")
    ids, page = set(), job_pb2.ListJobsResponse(next_page_token="")
    while True:
        _, [page] = calls("globex", "ListJobs", job_pb2.ListJobsRequest(page_size=1, page_token=page.next_page_token))
        ids |= {job.id for job in page.jobs}
        if not page.next_page_token:
            break
    assert globex <= ids
    assert not acme & ids


def test_the_same_request_id_of_two_tenants_makes_two_jobs(client_of):
    """A different request under an id of another tenant is not refused, which would reveal that the id is in use."""
    request_id, image = str(uuid.uuid4()), photo()
    acme = client_of("acme").submit(image, [GradCAM()], request_id=request_id)
    globex = client_of("globex").submit(photo(), [GradCAM()], request_id=request_id)
    assert acme.id != globex.id
    assert client_of("acme").submit(image, [GradCAM()], request_id=request_id).id == acme.id


def test_cached_results_are_not_shared_between_tenants(client_of):
    image = photo()
    client_of("acme").submit(image, [GradCAM()]).result()
    other = client_of("globex").submit(image, [GradCAM()])
    other.result()
    assert not other.status().cached
    repeated = client_of("acme").submit(image, [GradCAM()])
    repeated.result()
    assert repeated.status().cached


def test_all_servers_together_enforce_a_tenants_rate_and_the_sdk_retries(tmp_path, valkey, tokens):
    with running(tmp_path, valkey, tokens=tokens["file"], tenant_rate=0.5, tenant_burst=0) as service:
        service.worker("null=null")
        targets = [service.server()[1] for _ in range(2)]
        first, second = (Client(target, token=tokens["acme"], timeout=60) for target in targets)
        with first, second, Client(targets[0], token=tokens["globex"], timeout=60) as other:
            until(first.models)
            limits = first.server_info().limits
            assert (limits.tenant_rate, limits.tenant_burst) == (0.5, 0)
            image = photo()
            start = time.monotonic()
            first.submit(np.stack([image] * 2), [GradCAM()])
            with Client(targets[1], token=tokens["acme"], timeout=2) as hasty, pytest.raises(Overloaded) as refused:
                hasty.submit(image, [GradCAM()])
            assert (refused.value.reason, "tenant_rate" in str(refused.value)) == ("RATE_EXCEEDED", True)
            assert 0 < refused.value.retry_after <= 4
            other.submit(image, [GradCAM()])
            assert second.grad_cam(image)["grad_cam"].shape == (1, 14, 14)
            assert time.monotonic() - start >= 4  # two images at half an image a second


def test_a_server_with_a_tenant_rate_and_no_tokens_does_not_start():
    command = [sys.executable, "-m", "convlens.server", "--tenant-rate", "5"]
    process = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert process.returncode == 2
    assert "--tenant-rate: Value error, needs tokens" in process.stderr
