"""The three services over one channel, of either kind. A request may be a message, or its bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convlens.v1 import job_pb2_grpc, model_pb2_grpc, visualization_pb2_grpc


class Stubs:
    """The services' stubs."""

    def __init__(self, channel: Any) -> None:
        passing: Any = _Passing(channel)
        self.visualizations: Any = visualization_pb2_grpc.VisualizationServiceStub(passing)
        self.jobs: Any = job_pb2_grpc.JobServiceStub(passing)
        self.models: Any = model_pb2_grpc.ModelServiceStub(passing)


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
