"""Errors: each status of a real call becomes its error type, with the server's reason, field, job and delay."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from convlens import client
from convlens.client.errors import ConvlensError, from_rpc, from_status

Code = grpc.StatusCode
KINDS = {
    Code.INVALID_ARGUMENT: (client.InvalidArgument, ValueError),
    Code.UNAUTHENTICATED: (client.Unauthenticated, PermissionError),
    Code.PERMISSION_DENIED: (client.PermissionDenied, PermissionError),
    Code.NOT_FOUND: (client.NotFound, LookupError),
    Code.FAILED_PRECONDITION: (client.FailedPrecondition, ConvlensError),
    Code.RESOURCE_EXHAUSTED: (client.Overloaded, ConvlensError),
    Code.DEADLINE_EXCEEDED: (client.DeadlineExceeded, TimeoutError),
    Code.UNAVAILABLE: (client.Unavailable, ConnectionError),
    Code.CANCELLED: (client.Cancelled, ConvlensError),
    Code.ABORTED: (client.JobFailed, ConvlensError),
}
ERRORS = [code for code in Code if code is not Code.OK]
METHOD = "/test/Abort"


class Aborting(grpc.GenericRpcHandler):
    """Aborts each call with the google.rpc.Status in its request, and with its details where it has any."""

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.abort)

    def abort(self, request, context):
        status = status_pb2.Status.FromString(request)
        if status.details:
            context.abort_with_status(rpc_status.to_status(status))
        context.abort(next(code for code in Code if code.value[0] == status.code), status.message)


@pytest.fixture(scope="module")
def target():
    server = grpc.server(ThreadPoolExecutor(2), handlers=[Aborting()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def make_status(code, *details, message="what went wrong"):
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        status.details.append(any_pb2.Any())
        status.details[-1].Pack(detail)
    return status


async def call(target, status, kind):
    """Call through a channel of this kind, and return the error that the SDK makes of it."""
    request = status.SerializeToString()
    if kind == "sync":
        with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(METHOD)(request, timeout=20)
    else:
        async with grpc.aio.insecure_channel(target) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                await channel.unary_unary(METHOD)(request, timeout=20)
    return from_rpc(caught.value, target, "r-1")


def details(**metadata):
    return (
        error_details_pb2.ErrorInfo(reason="SOME_REASON", domain="convlens", metadata=metadata),
        error_details_pb2.BadRequest(
            field_violations=[error_details_pb2.BadRequest.FieldViolation(field="spec.images[2]", description="bad")]
        ),
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2, nanos=500_000_000)),
        error_details_pb2.RequestInfo(request_id="not known here"),
    )


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
@pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
async def test_each_status_becomes_its_error_type_with_all_details(target, code, kind):
    expected, builtin = KINDS.get(code, (ConvlensError, Exception))
    error = await call(target, make_status(code, *details(job_id="ab12")), kind)
    assert type(error) is expected
    assert isinstance(error, builtin)
    assert (error.message, error.reason, error.field) == ("what went wrong", "SOME_REASON", "spec.images[2]")
    assert (error.job_id, error.request_id, error.retry_after) == ("ab12", "r-1", 2.5)
    assert str(error) == "what went wrong (reason SOME_REASON, field spec.images[2], job ab12, request r-1)"


@pytest.mark.parametrize("kind", ["sync", "asyncio"])
@pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
async def test_a_status_without_details_becomes_its_error_type_too(target, code, kind):
    error = await call(target, make_status(code), kind)
    expected, _ = KINDS.get(code, (ConvlensError, Exception))
    # a server that stops cancels its calls
    assert type(error) is (client.Unavailable if code is Code.CANCELLED else expected)
    assert "what went wrong" in error.message
    assert (error.reason, error.field, error.job_id, error.retry_after) == ("", "", "", None)


def test_every_type_has_a_status():
    kinds = {kind for kind in vars(client).values() if isinstance(kind, type) and issubclass(kind, ConvlensError)}
    assert kinds == {kind for kind, _ in KINDS.values()} | {ConvlensError, client.DataCorrupted, client.MissingExtra}


@pytest.mark.parametrize("code", [Code.INTERNAL, Code.UNKNOWN])
def test_a_failed_job_is_distinguished_from_a_failed_call(code):
    assert type(from_status(make_status(code, *details(job_state="FAILED")))) is client.JobFailed
    assert type(from_status(make_status(Code.INVALID_ARGUMENT, *details(job_state="FAILED")))) is client.InvalidArgument
    assert type(from_status(make_status(code, *details()))) is ConvlensError


async def test_a_server_that_does_not_answer_is_named():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        target = f"127.0.0.1:{unused.getsockname()[1]}"
        for kind in ("sync", "asyncio"):
            error = await call(target, make_status(Code.OK), kind)
            assert type(error) is client.Unavailable
            assert error.message.startswith(f"no Convlens server answers at {target}: ")


def test_an_error_without_details_is_printed_as_its_message():
    assert str(ConvlensError("no")) == "no"


@pytest.mark.parametrize("prefix", ["SERVER: R", "R"])
async def test_grpcs_own_refusal_of_a_large_request_is_an_invalid_argument_with_both_sizes(target, prefix):
    message = f"{prefix}eceived message larger than max (70000000 vs. 67108864)"
    error = await call(target, make_status(Code.RESOURCE_EXHAUSTED, message=message), "sync")
    assert type(error) is client.InvalidArgument
    assert (error.reason, error.field) == ("REQUEST_TOO_LARGE", "request")
    assert error.message == "request: is 70000000 bytes; allowed by the server: 67108864"
