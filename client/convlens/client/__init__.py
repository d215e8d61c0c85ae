"""The Python SDK of Convlens: what did this VGG16 look at?

from convlens.client import Client, GradCAM, Saliency

with Client("localhost:50051") as client:
    result = client.visualize("dog.jpg", [Saliency(), GradCAM()])
    result["grad_cam"]          # float32 (1, 14, 14)
    result.save("out")
"""

from convlens.client.aio import AsyncClient
from convlens.client.connection import TLS
from convlens.client.errors import (
    Cancelled,
    ConvlensError,
    DataCorrupted,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    JobFailed,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from convlens.client.options import Activations, Blur, GradCAM, Occlusion, Output, Saliency
from convlens.client.results import Explanation, Prediction, Result, Timing
from convlens.client.sync import Client, Job
from convlens.client.targets import ALL_UNITS, TopK

__all__ = [
    "ALL_UNITS",
    "TLS",
    "Activations",
    "AsyncClient",
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
    "JobFailed",
    "NotFound",
    "Occlusion",
    "Output",
    "Overloaded",
    "PermissionDenied",
    "Prediction",
    "Result",
    "Saliency",
    "Timing",
    "TopK",
    "Unauthenticated",
    "Unavailable",
]
