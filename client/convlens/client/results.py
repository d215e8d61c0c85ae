"""A result: arrays by name, and what each of them explains. A value: it pickles, and needs no connection."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convlens.client.errors import DataCorrupted, InvalidArgument
from convlens.client.images import SentImage
from convlens.v1 import result_pb2, tensors
from convlens.v1.framing import Data

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = tensors.Array


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
        return f"{self.label or self.index} {self._certainty()}"

    def _certainty(self) -> str:
        if self.probability is None:
            return f"logit {self.logit:.2f}"
        if self.probability < 0.0005:
            return "<0.1%"
        return ">99.9%" if 0.9995 <= self.probability < 1 else f"{self.probability:.1%}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one map of one image explains."""

    index: int
    """The unit; -1 for the mean of all."""
    label: str
    score: float
    kind: str
    """logit, or activation for a unit of an inner layer."""
    probability: float | None
    baseline_output: float | None = None
    """Of integrated gradients and XRAI: the baseline's score, the mean over several."""
    completeness_delta: float | None = None
    """Of the same: Σ attributions − (score − baseline_output); more steps bring it nearer to 0."""
    completeness_delta_relative: float | None = None
    """As a share of the difference: above 0.05 take more steps, or another baseline where that is small itself."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time went, seconds."""

    queued: float
    decode: float
    wait: float
    compute: float
    store: float
    batch_size: int
    """Images in the largest pass that this job rode in."""
    batch_cause: str
    """Why they were no more: full, nothing_waited, other_plan, no_room; empty where the worker did not say."""
    worker: str
    precision: str


class Result(Mapping[str, Array]):
    """Arrays by name, batch first: saliency, saliency/guided, grad_cam, activations/LAYER…

    A name's beginning will do where only one array has it: result["grad_cam"] finds grad_cam/block4_conv3.
    """

    def __init__(self, header: result_pb2.ResultHeader, arrays: Mapping[str, Array], request: Request) -> None:
        self._arrays = dict(arrays)
        self._scales = {
            it.name: (np.array(it.scale, np.float32), np.array(it.offset, np.float32))
            for it in header.tensors
            if it.scale
        }
        self.job_id = header.job_id
        self.request_id = request.request_id
        self.model = header.model
        self.model_digest = header.model_digest
        self.preprocess = header.preprocess
        """How RGB in 0…255 became the network's input, as on the model's card; empty from a server that is too old."""
        self.preprocess_assumed = header.preprocess_assumed
        """True where the model's file does not say so: maps are wrong where it was trained with another one."""
        self.cached = header.cached
        """True when an equal request's result answered; `fresh=True` asks for a computation of one's own."""
        self.images: Sequence[SentImage] = request.images
        """The images as they were sent; empty for a result taken up by its job's id."""
        self.channels = {it.name: tuple(it.channels) for it in header.tensors if it.channels}
        """By array: which of the layer's channels its last axis holds; without an entry, all of them."""
        self._reports = list(header.images)
        self._target_axis = header.target_axis
        times = header.timing
        self.timing = Timing(
            queued=times.queued.ToNanoseconds() / 1e9,
            decode=times.decode.ToNanoseconds() / 1e9,
            wait=times.wait.ToNanoseconds() / 1e9,
            compute=times.compute.ToNanoseconds() / 1e9,
            store=times.store.ToNanoseconds() / 1e9,
            batch_size=times.batch_size,
            batch_cause=_cause(times.batch_cause),
            worker=times.worker,
            precision=_precision(header),
        )

    @functools.cached_property
    def predictions(self) -> list[list[Prediction]]:
        """Per image: the best classes, descending."""
        return [[_prediction(it) for it in report.predictions] for report in self._reports]

    @functools.cached_property
    def explained(self) -> list[dict[str, Explanation | tuple[Explanation, ...]]]:
        """Per image: by map, what it explains; a tuple where the map has a target axis."""
        return [_explained(report, self._arrays, self._target_axis) for report in self._reports]

    def __getitem__(self, name: str) -> Array:
        if name in self._arrays:
            return self._arrays[name]
        begun = [it for it in self._arrays if it.startswith(f"{name}/")]
        if len(begun) == 1:
            return self._arrays[begun[0]]
        raise KeyError(f"{name!r}; there {'are' if len(self) != 1 else 'is'} {', '.join(self._arrays)}")

    def restored(self, name: str) -> Array:
        """The array's values in float32: of uint8, offset + scale·q, each map's own; wrong by half a step at most."""
        array = self[name]
        if array.dtype != np.uint8:
            return array.astype(np.float32)
        scale, offset = self._scales[next(it for it, found in self._arrays.items() if found is array)]
        rows: Array = array.reshape(len(scale), -1).astype(np.float32) * scale[:, None] + offset[:, None]
        return rows.reshape(array.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        arrays = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in self._arrays.items())
        return f"<Result of job {self.job_id} by {self.model}: {arrays}>"

    def split(self) -> list[Result]:
        """One result an image; the arrays are views of these."""
        lazy = {"predictions", "explained"}
        common = {name: value for name, value in self.__dict__.items() if name not in lazy}
        return [self._only(row, common) for row in range(len(self._reports))]

    def _only(self, row: int, common: dict[str, Any]) -> Result:
        part = Result.__new__(Result)
        part.__dict__ = common.copy()
        part._arrays = {name: array[row : row + 1] for name, array in self._arrays.items()}
        part._scales = {}
        for name, (scale, offset) in self._scales.items():
            share = len(scale) // len(self._reports)
            part._scales[name] = (scale[row * share : (row + 1) * share], offset[row * share : (row + 1) * share])
        part.images = self.images[row : row + 1]
        part._reports = self._reports[row : row + 1]
        return part

    def figure(self, image: int = 0, **style: Any) -> Figure:
        """The photo and its maps side by side, as a matplotlib figure. Needs convlens-client[figures]."""
        from convlens.client import figures

        return figures.maps(self, image, figures.Style(**style))

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows; nothing without convlens-client[figures], or where nothing can be drawn."""
        if find_spec("matplotlib") is None:
            return None
        from convlens.client import figures

        try:
            return figures.encoded(self.figure())
        except InvalidArgument:
            return None

    def save(self, folder: str | Path, **style: Any) -> list[Path]:
        """Writes pictures and arrays into `folder` and returns their paths. Needs convlens-client[figures]."""
        from convlens.client import figures

        return figures.save(self, Path(folder), figures.Style(**style))


@dataclass(frozen=True, slots=True)
class Request:
    """What a result answers."""

    images: Sequence[SentImage] = ()
    request_id: str = ""


class Assembler:
    """Puts a result together from its header and chunks, in preallocated arrays, and says where to resume."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._header: result_pb2.ResultHeader | None = None
        self._arrays: list[Array] = []
        self._views: list[memoryview] = []
        self.offset = 0
        """Bytes received so far; where an interrupted read goes on."""

    def header(self, header: result_pb2.ResultHeader, data: Data = b"") -> None:
        """Takes the header, and `data` that came with it; one repeated by a resumed read announces the same arrays."""
        if self._header is not None:
            if list(header.tensors) != list(self._header.tensors):
                raise self._corrupted("the resumed result announces other arrays")
            return
        self._header = header
        try:
            self._arrays = [tensors.allocate(spec) for spec in header.tensors]
        except tensors.TensorError as error:
            raise self._corrupted(str(error)) from error
        self._views = [tensors.buffer_of(array) for array in self._arrays]
        self._fill(data)

    def chunk(self, offset: int, data: Data) -> None:
        """Takes the next chunk; they come in order and without gaps."""
        if offset != self.offset:
            raise self._corrupted(f"a chunk begins at {offset}, expected was {self.offset}")
        self._fill(data)

    def _fill(self, received: Data) -> None:
        """Puts the next bytes into their places."""
        data = memoryview(received)
        start = 0
        for view in self._views:
            inside = self.offset - start
            if data and 0 <= inside < len(view):
                part = data[: len(view) - inside]
                view[inside : inside + len(part)] = part
                self.offset += len(part)
                data = data[len(part) :]
            start += len(view)
        if data:
            raise self._corrupted("more bytes arrived than were announced")

    def result(self) -> Result:
        """The result, verified by length and checksum. DataCorrupted when it is not whole."""
        if self._header is None or self.offset != sum(map(len, self._views)):
            raise self._corrupted("the result ended early")
        for array, spec in zip(self._arrays, self._header.tensors, strict=True):
            try:
                tensors.verify(array, spec)
            except tensors.TensorError as error:
                raise self._corrupted(str(error)) from error
        names = [spec.name for spec in self._header.tensors]
        return Result(self._header, dict(zip(names, self._arrays, strict=True)), self._request)

    def _corrupted(self, message: str) -> DataCorrupted:
        job_id = self._header.job_id if self._header else ""
        return DataCorrupted(message, job_id=job_id, request_id=self._request.request_id)


def _prediction(message: result_pb2.Prediction) -> Prediction:
    probability = message.probability if message.HasField("probability") else None
    return Prediction(message.index, message.label, message.logit, probability)


def _explained(
    image: result_pb2.ImageReport, arrays: Mapping[str, Array], target_axis: bool
) -> dict[str, Explanation | tuple[Explanation, ...]]:
    found: dict[str, list[Explanation]] = {}
    for it in image.explanations:
        kind = "activation" if it.score_kind == result_pb2.SCORE_KIND_ACTIVATION else "logit"
        found.setdefault(it.tensor, []).append(
            Explanation(it.index, it.label, it.score, kind, *(_optional(it, name) for name in _OPTIONAL))
        )
    return {name: tuple(it) if target_axis else it[0] for name, it in found.items() if name in arrays}


_OPTIONAL = ("probability", "baseline_output", "completeness_delta", "completeness_delta_relative")


def _optional(message: result_pb2.Explanation, field: Any) -> float | None:
    return getattr(message, field) if message.HasField(field) else None


def _cause(number: int) -> str:
    """Empty for one that is not set, or that this client is too old to know."""
    if not number or number not in result_pb2.BatchCause.values():
        return ""
    return result_pb2.BatchCause.Name(number).removeprefix("BATCH_CAUSE_").lower()  # type: ignore[arg-type]


def _precision(header: result_pb2.ResultHeader) -> str:
    from convlens.v1 import model_pb2

    return model_pb2.Precision.Name(header.precision).removeprefix("PRECISION_").lower()
