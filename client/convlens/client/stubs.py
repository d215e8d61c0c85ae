"""The three services over one channel, of either kind. A request may be a message, or its bytes.

Answers with tensors are also to be had as bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convlens.v1 import job_pb2, job_pb2_grpc, model_pb2_grpc, visualization_pb2, visualization_pb2_grpc


class Stubs:
    """The services' stubs."""

    def __init__(self, channel: Any) -> None:
        passing: Any = _Passing(channel)
        self.visualizations: Any = visualization_pb2_grpc.VisualizationServiceStub(passing)
        self.jobs: Any = job_pb2_grpc.JobServiceStub(passing)
        self.models: Any = model_pb2_grpc.ModelServiceStub(passing)
        self.visualize_unary_bytes = _giving_bytes(passing, visualization_pb2, "VisualizationService", "VisualizeUnary")
        self.visualize_bytes = _giving_bytes(passing, visualization_pb2, "VisualizationService", "Visualize")
        self.read_result_bytes = _giving_bytes(passing, job_pb2, "JobService", "ReadJobResult")


def _giving_bytes(channel: _Passing, module: Any, service: str, method: str) -> Any:
    """A method whose answers, one or a stream, come as they are."""
    about = module.DESCRIPTOR.services_by_name[service]
    described = about.methods_by_name[method]
    serialize = getattr(module, described.input_type.name).SerializeToString
    kind = channel.unary_stream if described.server_streaming else channel.unary_unary
    return kind(f"/{about.full_name}/{method}", request_serializer=serialize)


class _Passing:
    """A channel whose calls leave alone what is serialized already."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        make = getattr(self._channel, kind)

        def multicallable(method: str, request_serializer: Callable[[Any], bytes], **options: Any) -> Any:
            def serialized(request: Any) -> bytes:
                return request if isinstance(request, bytes) else request_serializer(request)

            return make(method, request_serializer=serialized, **options)

        return multicallable


class Cancellable:
    """A synchronous channel whose unary calls are streams of one message, for another thread to cancel.

    The wire has no difference; with_call() cannot be cancelled, and future() takes twice the time or more.
    """

    def __init__(self, channel: Any) -> None:
        self.unary_unary = self.unary_stream = channel.unary_stream
        self.stream_stream = channel.stream_stream
