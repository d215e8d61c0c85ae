"""What the server says of the models it serves, of those it cannot serve, and of itself."""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from google.protobuf.duration_pb2 import Duration

from convlens.v1 import model_pb2
from convlens.v1.enums import short_name


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a model."""

    name: str
    kind: str
    """The Keras class, such as Conv2D."""
    shape: tuple[int, ...]
    """Of its output, without the batch axis."""
    taped: bool = False
    """True if its gradient is TensorFlow's own, not a rule of the engine."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ModelCard:
    """A served model: input, layers, labels, weights."""

    name: str
    source: str = ""
    digest: str = ""
    """SHA-256 of architecture and weights, lower-case hex; empty for null models."""
    input_shape: tuple[int, ...] = ()
    """(height, width, channels)."""
    layers: tuple[Layer, ...] = ()
    """In the order of the network."""
    labels: tuple[str, ...] = ()
    """By class index; empty if the model has none."""
    preprocess: str = ""
    """How RGB in 0…255 becomes the network's input: caffe, tf, torch, unit or none."""
    preprocess_assumed: bool = False
    """True if the model's file does not say so."""
    preprocess_reason: str = ""
    preprocess_mean: tuple[float, ...] = ()
    preprocess_std: tuple[float, ...] = ()
    precision: str = ""
    """float32, tf32, bfloat16 or float16."""
    score_layer: str = ""
    """The layer of the logits."""
    cam_layer: str = ""
    """The default layer of Grad-CAM."""
    synthetic: bool = False
    """True if weights are random or nothing is computed: for load tests, not for looking at."""
    max_batch_size: int = 0
    workers: int = 0
    """Live workers that serve the model."""
    has_probability: bool = False
    """True if the model ends in a softmax or sigmoid."""
    methods: tuple[str, ...] = ()
    unavailable_methods: Mapping[str, str] = field(default_factory=dict, hash=False)
    """By method, why it cannot be computed for this model."""
    classes: int = 0
    worker_version: str = ""

    def __repr__(self) -> str:
        size = "×".join(map(str, self.input_shape))
        return f"<ModelCard {self.name}: {size}, {len(self.layers)} layers, {self.classes} classes>"

    @classmethod
    def from_message(cls, model: model_pb2.Model) -> Self:
        """Return the card that a Model message states."""
        values = _plain_fields(cls, model)
        values["precision"] = short_name(model_pb2.Precision, model.precision) or ""
        values["layers"] = tuple(
            Layer(layer.name, layer.kind, tuple(layer.shape), layer.taped) for layer in model.layers
        )
        values["unavailable_methods"] = dict(model.unavailable_methods)
        return cls(**values)


@dataclass(frozen=True, slots=True)
class RefusedModel:
    """A model that a live worker was configured to serve and cannot."""

    name: str
    source: str
    reason: str
    worker: str

    @classmethod
    def from_message(cls, model: model_pb2.RefusedModel) -> Self:
        """Return what a RefusedModel message states."""
        return cls(**_plain_fields(cls, model))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A server's limits; times are in seconds."""

    max_request_bytes: int = 0
    max_images: int = 0
    max_image_pixels: int = 0
    max_result_bytes: int = 0
    max_visualizations: int = 0
    max_targets: int = 0
    max_jobs: int = 0
    max_timeout: float = 0.0
    default_timeout: float = 0.0
    result_ttl: float = 0.0
    """How long a result is kept after its job has ended."""
    max_passes: int = 0
    max_queued_bytes: int = 0
    max_stored_bytes: int = 0
    tenant_share: float = 0.0
    """Share of the limits on all jobs that one tenant may use, 0…1."""
    tenant_rate: float | None = None
    """Images × passes per second of one tenant; None for no limit."""
    tenant_burst: float = 0.0
    """How far a tenant may be ahead of its rate."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server's version, limits and features."""

    version: str
    limits: Limits
    features: tuple[str, ...] = ()
    default_model: str = ""
    """Empty if no model is served."""

    @classmethod
    def from_message(cls, info: model_pb2.GetServerInfoResponse) -> Self:
        """Return what a GetServerInfoResponse states."""
        limits = Limits(**_plain_fields(Limits, info.limits))
        return cls(info.version, limits, tuple(info.features), info.default_model)


def _plain_fields(kind: type[Any], message: Any) -> dict[str, Any]:
    """Return the fields of a message that `kind` has, too: repeated ones as tuples, durations as seconds."""
    values = {}
    for name in (attribute.name for attribute in fields(kind)):
        descriptor, value = message.DESCRIPTOR.fields_by_name[name], getattr(message, name)
        if isinstance(value, MutableSequence):  # protobuf 5 has no descriptor.is_repeated
            value = tuple(value)
        elif isinstance(value, Duration):
            value = value.ToNanoseconds() / 1e9
        elif descriptor.has_presence and not message.HasField(name):
            value = None
        values[name] = value
    return values
