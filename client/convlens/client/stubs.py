"""The three services over one channel, synchronous or asynchronous. A request may be a message or its bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convlens.v1 import job_pb2_grpc, model_pb2_grpc, visualization_pb2_grpc


class Stubs:
    """The stubs of the services."""

    def __init__(self, channel: Any) -> None:
        accepting: Any = _BytesAccepting(channel)
        self.visualizations: Any = visualization_pb2_grpc.VisualizationServiceStub(accepting)
        self.jobs: Any = job_pb2_grpc.JobServiceStub(accepting)
        self.models: Any = model_pb2_grpc.ModelServiceStub(accepting)


class _BytesAccepting:
    """A channel whose calls send a request of bytes as it is."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        make = getattr(self._channel, kind)

        def multicallable(method: str, request_serializer: Callable[[Any], bytes], **options: Any) -> Any:
            def serialize(request: Any) -> bytes:
                return request if isinstance(request, bytes) else request_serializer(request)

            return make(method, request_serializer=serialize, **options)

        return multicallable


class Cancellable:
    """A synchronous channel whose unary calls are streams of one message, for another thread to cancel.

    The wire has no difference; with_call() cannot be cancelled, and future() takes twice the time or more.
    """

    def __init__(self, channel: Any) -> None:
        self.unary_unary = self.unary_stream = channel.unary_stream
        self.stream_stream = channel.stream_stream
