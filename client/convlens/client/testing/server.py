"""The fake server: the services on a port, what it received, and what a test makes it do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf import message_factory
from google.protobuf.message import Message
from grpc_status import rpc_status

from convlens.client.model_card import ModelCard
from convlens.client.testing.cards import vgg16
from convlens.client.testing.services import VERSION, Services
from convlens.v1 import job_pb2, model_pb2, visualization_pb2
from convlens.v1.conventions import VERSION_KEY
from convlens.v1.reasons import Reason
from convlens.v1.status_error import StatusError

MAX_CALLS: Final = 256
"""Concurrent calls; each takes a thread while it waits for a job."""
_SUBMITTING: Final = {"Visualize", "VisualizeUnary", "SubmitJob"}
_SERVICES: Final = {
    service.full_name: service
    for file in (model_pb2, job_pb2, visualization_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
}
_MESSAGE: Final = "the test made this error"
_RETRIED: Final = {"QUEUE_FULL", "RATE_EXCEEDED", "SERVER_FULL", "STORE_FULL", "NO_WORKERS"}
"""Reasons that the real server sends with the delay of a retry."""


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request that the server received."""

    method: str
    """Its method's name, such as VisualizeUnary."""
    message: Any
    """The message of convlens.v1."""


class FakeServer:
    """A Convlens server in this process, made by serve(). Safe across threads."""

    def __init__(self, models: Iterable[ModelCard], delay: float) -> None:
        self.requests: list[ReceivedRequest] = []
        """All requests so far, in order, retries and refused ones included."""
        self._services = Services(models, delay, self._receive)
        self._call_errors: list[tuple[str, StatusError]] = []
        """The errors of the next calls, each with the method that it is for, if that is given."""
        self._lock = threading.Lock()
        self._server: Any = None

    def __enter__(self) -> str:
        self._server = grpc.server(ThreadPoolExecutor(MAX_CALLS), options=[("grpc.max_receive_message_length", -1)])
        for name, service in _SERVICES.items():
            handlers = {method.name: self._handler(method) for method in service.methods}
            self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])
        self._add_health()
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return f"127.0.0.1:{port}"

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    @property
    def delay(self) -> float:
        """Seconds from a job's submission to its end, for the jobs submitted from now on; math.inf for never.

        A job is QUEUED for half of this time, then RUNNING. One that the result of an equal request answers ends with
        that request, unless it is `fresh`.
        """
        return self._services.delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._services.delay = seconds

    def fail_next(
        self, reason: str, message: str = _MESSAGE, *, times: int = 1, field: str = "",
        retry_after: float | None = None, method: str = "",
    ) -> None:  # fmt: skip
        """Refuse the next `times` calls with a reason of docs/errors.md. ValueError for an unknown reason.

        These are the calls that submit jobs, or those of `method`, such as "ListModels". The SDK repeats a call by
        itself after QUEUE_FULL, NO_WORKERS and their like: after `retry_after` seconds, by default 1, unless the call's
        timeout is shorter.
        """
        _check_reason(reason)
        delay = 1.0 if retry_after is None and reason in _RETRIED else retry_after
        with self._lock:
            self._call_errors.extend([(method, StatusError(reason, message, field=field, retry_after=delay))] * times)

    def fail_next_job(self, reason: str, message: str = _MESSAGE, *, times: int = 1, field: str = "") -> None:
        """Accept the next `times` jobs and let them end FAILED. ValueError for an unknown reason.

        IMAGE_UNREADABLE with field="spec.images[0]" is a file damaged inside, ATTEMPTS_EXHAUSTED a worker that died.
        """
        _check_reason(reason)
        self._services.job_errors.extend([job_pb2.JobError(reason=reason, message=message, field=field)] * times)

    def expire_result(self, job_id: str) -> None:
        """Delete the result of a job that has ended: reading it raises NotFound, reason RESULT_EXPIRED."""
        self._services.jobs.get(job_id).message.result_expired = True

    def _add_health(self) -> None:
        """Serve health checks, where their package, which the SDK does not need, is installed."""
        with contextlib.suppress(ImportError):
            from grpc_health.v1 import health, health_pb2, health_pb2_grpc

            servicer = health.HealthServicer()
            for name in ("", *_SERVICES, *(f"model/{name}" for name in self._services.cards)):
                servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
            health_pb2_grpc.add_HealthServicer_to_server(servicer, self._server)

    def _handler(self, method: Any) -> Any:
        """Return the handler of a method. A unary call is, on the wire, a stream of one response."""
        behavior = getattr(self._services, method.name)

        def call(request: Any, context: Any) -> Iterator[Message]:
            context.set_trailing_metadata(((VERSION_KEY, VERSION),))
            try:
                self._receive(method.name, request)
                yield from behavior(request, context)
            except StatusError as error:
                context.abort_with_status(rpc_status.to_status(error.to_status()))

        parse = message_factory.GetMessageClass(method.input_type).FromString
        return grpc.unary_stream_rpc_method_handler(call, parse, lambda response: response.SerializeToString())

    def _receive(self, method: str, request: Message) -> None:
        """Record a request, and raise the error that the test made for it."""
        with self._lock:
            self.requests.append(ReceivedRequest(method, request))
            for i, (failing, error) in enumerate(self._call_errors):
                if failing == method or (not failing and method in _SUBMITTING):
                    del self._call_errors[i]
                    raise error


def _check_reason(reason: str) -> None:
    """Raise ValueError for a reason that the real server does not have."""
    if reason not in Reason.__members__:
        raise ValueError(f"no reason {reason!r}; allowed: {', '.join(Reason)}")


def serve(models: Sequence[ModelCard] | None = None, *, delay: float = 0.0) -> FakeServer:
    """Return a fake server of `models`, by default [vgg16()]. In a `with` it gives its target, "127.0.0.1:PORT".

    `models` are cards such as vgg16("birds", labels=…) or any ModelCard with input_shape, layers and cam_layer. `delay`
    is how long jobs take: see FakeServer.delay. The server runs in threads of its own, so that it serves the clients of
    an event loop, too.

        server = serve()
        with server as target, Client(target) as client:
            client.grad_cam("photo.jpg")
            assert server.requests[-1].message.spec.model == ""
    """
    return FakeServer([vgg16()] if models is None else models, delay)
