"""The three services over one channel, of either kind."""

from __future__ import annotations

from typing import Any

from convlens.v1 import job_pb2_grpc, model_pb2_grpc, visualization_pb2_grpc


class Stubs:
    """The services' stubs."""

    def __init__(self, channel: Any) -> None:
        self.visualizations: Any = visualization_pb2_grpc.VisualizationServiceStub(channel)
        self.jobs: Any = job_pb2_grpc.JobServiceStub(channel)
        self.models: Any = model_pb2_grpc.ModelServiceStub(channel)
