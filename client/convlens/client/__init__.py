"""The Python SDK of Convlens: what did this VGG16 look at?

from convlens.client import Client, GradCAM, Saliency

with Client("localhost:50051") as client:
    result = client.visualize("dog.jpg", [Saliency(), GradCAM()])
    result["grad_cam"]          # float32 (1, 14, 14)
    result.save("out")
"""

from convlens.client._async.client import AsyncClient
from convlens.client._async.job import AsyncJob
from convlens.client._sync.client import Client
from convlens.client._sync.job import Job
from convlens.client.connection import TLS
from convlens.client.errors import (
    Cancelled,
    ConvlensError,
    DataCorrupted,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    JobFailed,
    MissingExtra,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from convlens.client.job_status import JobErrorInfo, JobState, JobStatus
from convlens.client.model_card import Layer, Limits, ModelCard, RefusedModel, ServerInfo
from convlens.client.options import Activations, Blur, GradCAM, Occlusion, Output, Saliency, Visualization
from convlens.client.progress import Progress
from convlens.client.result import Explanation, MapExplanation, Prediction, Result, Timing
from convlens.client.targets import ALL_UNITS, TopK

__all__ = [
    "ALL_UNITS",
    "TLS",
    "Activations",
    "AsyncClient",
    "AsyncJob",
    "Blur",
    "Cancelled",
    "Client",
    "ConvlensError",
    "DataCorrupted",
    "DeadlineExceeded",
    "Explanation",
    "FailedPrecondition",
    "GradCAM",
    "InvalidArgument",
    "Job",
    "JobErrorInfo",
    "JobFailed",
    "JobState",
    "JobStatus",
    "Layer",
    "Limits",
    "MapExplanation",
    "MissingExtra",
    "ModelCard",
    "NotFound",
    "Occlusion",
    "Output",
    "Overloaded",
    "PermissionDenied",
    "Prediction",
    "Progress",
    "RefusedModel",
    "Result",
    "Saliency",
    "ServerInfo",
    "Timing",
    "TopK",
    "Unauthenticated",
    "Unavailable",
    "Visualization",
]
