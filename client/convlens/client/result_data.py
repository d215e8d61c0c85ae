"""What a server answered: arrays by name, and what each of them explains."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np

from convlens.client.images import SentImage
from convlens.v1 import result_pb2, tensors
from convlens.v1.enums import short_name
from convlens.v1.model_pb2 import Precision

Array = tensors.Array
_SHOWN_ARRAYS: Final = 4
"""Arrays that the repr of a result names."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A class the network considered."""

    index: int
    label: str
    """Empty when the model has no labels."""
    logit: float
    probability: float | None
    """None when the model ends in no softmax or sigmoid."""

    def __str__(self) -> str:
        """For people: the class and its probability, or its logit where it has none."""
        return f"{self.label or self.index} {self.certainty}"

    @property
    def certainty(self) -> str:
        """For people: the probability, never rounded to 0 or 1, or the logit where there is none."""
        if self.probability is None:
            return f"logit {self.logit:.2f}"
        if self.probability < 0.0005:
            return "<0.1%"
        return ">99.9%" if 0.9995 <= self.probability < 1 else f"{self.probability:.1%}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a map of one image explains, for one target."""

    index: int
    """The unit; -1 for the mean of all."""
    label: str
    score: float
    kind: str
    """What the score is: logit, or activation for a unit of an inner layer."""
    probability: float | None
    baseline_output: float | None = None
    """Integrated gradients and XRAI: the score of the baseline, the mean over several baselines."""
    completeness_delta: float | None = None
    """Integrated gradients and XRAI: Σ attributions − (score − baseline_output); more steps bring it nearer to 0."""
    completeness_delta_relative: float | None = None
    """As a share of the difference: above 0.05 take more steps, or another baseline if the difference is small."""


@dataclass(frozen=True, slots=True)
class MapExplanation(Explanation):
    """What a map of one image explains: the fields of its first target, and every target, in order, as a sequence."""

    targets: tuple[Explanation, ...] = ()
    """One, unless the map has a target axis."""

    def __iter__(self) -> Iterator[Explanation]:
        return iter(self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, target: int) -> Explanation:
        return self.targets[target]


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time went, in seconds."""

    queued: float
    decode: float
    wait: float
    compute: float
    store: float
    batch_size: int
    """Images in the largest batch that this job was part of."""
    batch_cause: str
    """Why the batch was not larger: full, nothing_waited, other_plan, no_room; empty if the worker does not say."""
    worker: str
    precision: str


class ResultData(Mapping[str, Array]):
    """The arrays, predictions and timing of a result: all that figures, reports and notebooks need of it."""

    def __init__(
        self,
        header: result_pb2.ResultHeader,
        arrays: Mapping[str, Array],
        images: Sequence[SentImage] = (),
        request_id: str = "",
    ) -> None:
        self._arrays = dict(arrays)
        self.quantization = {
            spec.name: (np.array(spec.scale, np.float32), np.array(spec.offset, np.float32))
            for spec in header.tensors
            if spec.scale
        }
        """Of arrays of uint8, by name: scale and offset of each map, float32, in the order of the leading axes."""
        self.job_id = header.job_id
        self.request_id = request_id
        self.model = header.model
        self.model_digest = header.model_digest
        self.preprocess = header.preprocess
        """How RGB in 0…255 became the network's input, as on the model's card; empty from an older server."""
        self.preprocess_assumed = header.preprocess_assumed
        """True if the model's file does not say so: maps are wrong if the model was trained with another one."""
        self.cached = header.cached
        """True if the result of an equal request answered; `fresh=True` asks for a new computation."""
        self.images: Sequence[SentImage] = images
        """The images as they were sent, for pictures: files as their bytes, arrays as their pixels, shared with the
        request. Empty for a job from another process."""
        self.channels = {spec.name: tuple(spec.channels) for spec in header.tensors if spec.channels}
        """By array: the layer's channels on its last axis; without an entry, all of them."""
        self._reports = list(header.images)
        self.has_target_axis = header.target_axis
        """True if the second axis of maps is that of several targets."""
        self.timing = _timing(header)

    @functools.cached_property
    def predictions(self) -> list[list[Prediction]]:
        """Per image: the best classes, descending."""
        return [[_prediction(message) for message in report.predictions] for report in self._reports]

    @functools.cached_property
    def explained(self) -> list[dict[str, MapExplanation]]:
        """Per image: what each map explains, by the map's name."""
        return [_explained(report, self._arrays) for report in self._reports]

    def __getitem__(self, name: str) -> Array:
        return self._arrays[self.full_name(name)]

    def full_name(self, name: str) -> str:
        """Return the name of the array that result[name] finds. KeyError lists the names there are."""
        if name in self._arrays:
            return name
        longer = [key for key in self._arrays if key.startswith(f"{name}/")]
        if len(longer) == 1:
            return longer[0]
        raise KeyError(f"{name!r}; there {'are' if len(self) != 1 else 'is'} {', '.join(self._arrays)}")

    def restored(self, name: str) -> Array:
        """Return an array as float32: from uint8, offset + scale·q of each map, wrong by half a step at most."""
        array = self[name]
        if array.dtype != np.uint8:
            return array.astype(np.float32)
        scale, offset = self.quantization[self.full_name(name)]
        rows: Array = array.reshape(len(scale), -1).astype(np.float32) * scale[:, None] + offset[:, None]
        return rows.reshape(array.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        shown = [f"{name} {'×'.join(map(str, self[name].shape))}" for name in list(self)[:_SHOWN_ARRAYS]]
        more = [f"and {len(self) - _SHOWN_ARRAYS} more"] if len(self) > _SHOWN_ARRAYS else []
        return f"<Result by {self.model}: {', '.join(shown + more)}>"

    def split(self, *, copy: bool = False) -> list[Self]:
        """Return one result per image, its arrays views of this one's, or copies that do not keep this one alive."""
        cached = {"predictions", "explained"}
        shared = {name: value for name, value in self.__dict__.items() if name not in cached}
        return [self._row(i, shared, copy=copy and len(self._reports) > 1) for i in range(len(self._reports))]

    def _row(self, i: int, shared: Mapping[str, Any], *, copy: bool) -> Self:
        part = type(self).__new__(type(self))
        part.__dict__.update(shared)
        part._arrays = {name: array[i : i + 1] for name, array in self._arrays.items()}
        part.quantization = {}
        for name, (scale, offset) in self.quantization.items():
            maps = slice(i * len(scale) // len(self._reports), (i + 1) * len(scale) // len(self._reports))
            part.quantization[name] = (scale[maps], offset[maps])
        part.images = self.images[i : i + 1]
        part._reports = self._reports[i : i + 1]
        if copy:
            part._arrays = {name: array.copy() for name, array in part._arrays.items()}
            part._reports = [result_pb2.ImageReport.FromString(self._reports[i].SerializeToString())]
        return part


def _prediction(message: result_pb2.Prediction) -> Prediction:
    return Prediction(message.index, message.label, message.logit, _optional(message, "probability"))


def _explained(report: result_pb2.ImageReport, arrays: Mapping[str, Array]) -> dict[str, MapExplanation]:
    """Return what each map of one image explains, by the map's name."""
    targets: dict[str, list[Explanation]] = {}
    for message in report.explanations:
        kind = "activation" if message.score_kind == result_pb2.SCORE_KIND_ACTIVATION else "logit"
        optional = {name: _optional(message, name) for name in _OPTIONAL}
        explanation = Explanation(message.index, message.label, message.score, kind, **optional)
        targets.setdefault(message.tensor, []).append(explanation)
    return {
        name: MapExplanation(**asdict(several[0]), targets=tuple(several))
        for name, several in targets.items()
        if name in arrays
    }


_OPTIONAL: Final = ("probability", "baseline_output", "completeness_delta", "completeness_delta_relative")


def _optional(message: Any, field: str) -> float | None:
    return getattr(message, field) if message.HasField(field) else None


def _timing(header: result_pb2.ResultHeader) -> Timing:
    times = header.timing
    seconds = {name: getattr(times, name).ToNanoseconds() / 1e9 for name in _DURATIONS}
    cause = short_name(result_pb2.BatchCause, times.batch_cause) or ""
    precision = short_name(Precision, header.precision) or ""
    return Timing(
        **seconds, batch_size=times.batch_size, batch_cause=cause, worker=times.worker, precision=precision
    )  # fmt: skip


_DURATIONS: Final = ("queued", "decode", "wait", "compute", "store")
