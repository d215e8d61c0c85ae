"""The JSON that describes a job: the part `request` of a form, and what the SDK is called with for it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, cast

from pydantic import BaseModel, Field, ValidationError

from convlens.client.options import Activations, Blur, Color, DType, GradCAM, Occlusion, Output, Saliency, Visualization
from convlens.client.request import Priority
from convlens.client.targets import ALL_UNITS, TopK
from convlens.web.problems import Problem
from convlens.web.strict_models import Strict, model_of

MAX_CHANNELS: Final = 8192
MAX_ITEMS: Final = 1024
"""Of the other lists in a request; the server's own limits are lower."""
_BOUNDED: Final = Field(max_length=MAX_ITEMS)


class BlurredImage(Strict):
    """A baseline: the image itself, blurred."""

    sigma: float = Field(Blur().sigma, description="of the Gaussian, in pixels of the model's input, 0.5…64")


_OUTPUT: Final = model_of(Output, {}, base=Strict)
_KINDS: Final[dict[str, type[Any]]] = {
    "saliency": Saliency,
    "grad_cam": GradCAM,
    "activations": Activations,
    "occlusion": Occlusion,
}
"""The dataclass of each type of visualization."""
_TYPES: Final[dict[str, Any]] = {
    "output": _OUTPUT,
    "baselines": Annotated[list[Color | BlurredImage], _BOUNDED],
    "channels": Annotated[list[int], Field(max_length=MAX_CHANNELS)]
    | Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
    | None,
}
_MODELS: Final = {tag: model_of(kind, _TYPES, base=Strict, tag=tag) for tag, kind in _KINDS.items()}

if TYPE_CHECKING:
    VisualizationModel = BaseModel
else:
    VisualizationModel = Annotated[Union[tuple(_MODELS.values())], Field(discriminator="type")]  # noqa: UP007


class BestClasses(Strict):
    """The classes of the highest scores."""

    top_k: int = Field(ge=1, description="how many; maps have a further axis, best class first")


OneTarget = int | str | BestClasses | None
SeveralTargets = Annotated[list[int], _BOUNDED] | Annotated[list[str], _BOUNDED]


class JobInput(Strict):
    """What to compute, and how. Every field may be left out."""

    model: str | None = Field(None, description="name of the model; null: the server's default")
    visualizations: Annotated[list[VisualizationModel], _BOUNDED] = Field(
        default_factory=lambda: [_MODELS["grad_cam"](type="grad_cam")],
        description="what to compute on every image; by default Grad-CAM",
    )
    target: OneTarget | Annotated[list[OneTarget | SeveralTargets], _BOUNDED] = Field(
        None,
        description='the classes to explain: null for the predicted one, an index, a label, {"top_k": 3}, "all" for '
        "the mean of all; or a list with one of these, or a list of several classes, for each image",
    )
    scored_layer: str | None = Field(None, description="layer whose units are the targets; null: that of the logits")
    predictions: int | None = Field(None, description="how many of the best classes to report")
    request_id: str | None = Field(None, description="a UUID; repeated requests with the same one are one job")
    priority: Priority = Field("normal", description="before or after other jobs of the caller")
    timeout: float | None = Field(None, gt=0, description="seconds that the job may take; null: the server's default")
    fresh: bool = Field(False, description="compute even if the result of an equal request is there")
    datatype: Literal["float32", "uint8"] = Field(
        "float32", description="of every array whose visualization has no dtype in its output"
    )

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of the SDK's visualize() and submit(), beside the images."""
        return {
            "visualizations": [_visualization(model, self.datatype) for model in self.visualizations],
            "model": self.model or "", "target": _targets(self.target), "scored_layer": self.scored_layer or "",
            "predictions": self.predictions, "request_id": self.request_id, "priority": self.priority,
            "timeout": self.timeout, "fresh": self.fresh,
        }  # fmt: skip


def parse_job_input(text: str | bytes) -> JobInput:
    """Parse the part `request`. Raises Problem 400 for what is no JSON, 422 for a field that is not allowed."""
    try:
        return JobInput.model_validate_json(text)
    except ValidationError as error:
        raise _problem(error) from None


def _visualization(model: Any, datatype: DType) -> Visualization:
    """Return the SDK's dataclass that a model describes."""
    values = {name: getattr(model, name) for name in type(model).model_fields if name != "type"}
    output = values["output"].model_dump()
    if "dtype" not in model.output.model_fields_set:
        output["dtype"] = datatype
    values["output"] = Output(**output)
    if isinstance(values.get("channels"), int):
        values["channels"] = range(values["channels"])
    if "baselines" in values:
        values["baselines"] = [
            Blur(baseline.sigma) if isinstance(baseline, BlurredImage) else baseline for baseline in values["baselines"]
        ]
    visualization: Visualization = _KINDS[model.type](**values)
    return visualization


def _targets(target: Any) -> Any:
    """Return the SDK's targets: None, integers and labels stay as they are."""
    if isinstance(target, list):
        return [_targets(inner) for inner in target]
    if isinstance(target, BestClasses):
        return TopK(target.top_k)
    return ALL_UNITS if target == "all" else target


def _problem(error: ValidationError) -> Problem:
    """Return the problem of the first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        return Problem(400, "INVALID_FIELD", f"request: {first['msg']}", field="request")
    path, model, rest = _locate(first["loc"])
    message = first["msg"]
    if first["type"] == "extra_forbidden":
        name, known = str(rest.pop(0)), list(model.model_fields)
        path = f"{path}.{name}" if path else name
        similar = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {similar[0]}?" if similar else f"allowed: {', '.join(known)}"
        message = f"unknown field; {hint}"
    elif rest:  # one of several types that the field may have
        name = path.rpartition(".")[2].partition("[")[0]
        message = f"allowed: {model.model_fields[name].description}"
    return Problem(422, "INVALID_FIELD", f"{path or 'request'}: {message}", field=path or "request")


def _locate(location: Sequence[int | str]) -> tuple[str, type[BaseModel], list[int | str]]:
    """Return the path of a field such as visualizations[0].method, its model, and what pydantic adds to the path."""
    path, model, rest = "", cast("type[BaseModel]", JobInput), list(location)
    while rest:
        part = rest[0]
        if isinstance(part, int):
            path += f"[{part}]"
        elif part in _MODELS:
            model = _MODELS[part]
        elif part in model.model_fields:
            path += f".{part}" if path else part
            model = _OUTPUT if part == "output" else model
        else:
            break
        rest.pop(0)
    return path, model, rest
