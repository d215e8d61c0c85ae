"""Requests for jobs: what a caller passes to visualize(), submit() or map(), validated and serialized."""

from __future__ import annotations

import reprlib
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from convlens.client.errors import InvalidArgument
from convlens.client.images import SentImage
from convlens.client.options import Visualization, visualization_messages
from convlens.client.targets import Targets, targets_message
from convlens.client.timeouts import DEFAULT_TIMEOUT
from convlens.v1 import spec_pb2, visualization_pb2

Priority = Literal["high", "normal", "low"]
PRIORITIES: Final = {
    "high": spec_pb2.PRIORITY_HIGH,
    "normal": spec_pb2.PRIORITY_NORMAL,
    "low": spec_pb2.PRIORITY_LOW,
}


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A VisualizeRequest, VisualizeUnaryRequest or SubmitJobRequest: all three have the same fields."""

    serialized: bytes
    images: Sequence[SentImage]
    spec: spec_pb2.JobSpec
    """Without the images."""
    request_id: str

    @property
    def is_result_large(self) -> bool:
        """True if the result may be too large for one message."""
        return any(visualization.HasField("activations") for visualization in self.spec.visualizations)


def new_spec(
    visualizations: Iterable[Visualization],
    *,
    model: str,
    scored_layer: str,
    predictions: int | None,
    priority: Priority,
    fresh: bool,
) -> spec_pb2.JobSpec:
    """Return a JobSpec without images, targets and timeout. InvalidArgument for a value of the wrong type."""
    if not isinstance(priority, str) or priority not in PRIORITIES:
        raise InvalidArgument(f"no priority {priority!r}; allowed: {', '.join(PRIORITIES)}", field="priority")
    spec = spec_pb2.JobSpec(visualizations=visualization_messages(visualizations), priority=PRIORITIES[priority])
    for field, value, allowed in (
        ("model", model, "a model's name"),
        ("scored_layer", scored_layer, "a layer's name"),
        ("predictions", predictions, "a whole number, or None for as many as come for free"),
        ("fresh", fresh, "True or False"),
    ):
        try:
            if value is not None:
                setattr(spec, field, value)
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"{field} is {reprlib.repr(value)}; allowed: {allowed}", field=field) from error
    return spec


def new_request(
    spec: spec_pb2.JobSpec,
    images: Sequence[SentImage],
    target: Targets | Sequence[spec_pb2.Target],
    request_id: str | None = None,
    time_limit: float | None = None,
) -> JobRequest:
    """Return the request for a job of `images`, which may take `time_limit` seconds. InvalidArgument for bad targets.

    Serialized messages of one type put end to end are the serialized form of the merged message, so each image is
    serialized once, when it is packed: https://protobuf.dev/programming-guides/encoding/#last-one-wins
    """
    if not isinstance(request_id, str | None):
        raise InvalidArgument(f"request_id is {request_id!r}; allowed: a UUID as text", field="request_id")
    request_id = request_id or str(uuid.uuid4())  # the same for every attempt of this call
    rest = visualization_pb2.VisualizeRequest(spec=spec, request_id=request_id)
    rest.spec.targets.extend(targets_message(target, len(images)))
    if time_limit is not None:
        rest.spec.timeout.FromNanoseconds(max(1, int(time_limit * 1e9)))
    serialized = b"".join([*(image.serialized for image in images), rest.SerializeToString()])
    return JobRequest(serialized, images, rest.spec, request_id)


def job_time_limit(seconds: float, server_maximum: float) -> float | None:
    """Return the time limit to send with a job whose caller waits `seconds`; None for the server's default.

    `server_maximum` is the longest limit that the server accepts, 0 if unknown.
    """
    return min(seconds, server_maximum) if seconds > DEFAULT_TIMEOUT and server_maximum else None
