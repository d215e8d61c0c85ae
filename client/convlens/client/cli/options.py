"""Options that several commands share, each written once, and the decorator that gives them to a command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from convlens.client.cli.as_json import Json
from convlens.client.cli.parsing import check_colormap
from convlens.client.drawing import Background, Kind, Scale

Images = Annotated[list[Path], typer.Argument(help="Image files, or arrays as .npy files.", show_default=False)]
Channels = Annotated[
    str, typer.Option("--channels", help="Channels of each --layer, such as 0-4,17; by default the first five.")
]
Layers = Annotated[list[str], typer.Option("--layer", help="A layer; may be given several times.", show_default=False)]
ColorMap = Annotated[
    str | None,
    typer.Option(callback=check_colormap, help="A colour map of matplotlib's, such as jet.", show_default=False),
]
Percentile = Annotated[float, typer.Option(min=0.1, max=100, help="Values above it are drawn as strongly as it.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOptions:
    """What every command that computes maps has."""

    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for pictures and arrays, one folder an image.")] = (
        Path("out")
    )
    model: Annotated[str, typer.Option(help="The model's name; by default the first by name of those served.")] = ""
    value_range: Annotated[
        str, typer.Option("--value-range", help="Black and white of float arrays (.npy): 0,255 or 0,1 or -1,1.")
    ] = ""
    as_json: Json = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetOptions(MapOptions):
    """What every command that explains a class has."""

    target: Annotated[
        str | None,
        typer.Option(help="A class index or label, `top3` for the three best, `all`; by default the predicted."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions(TargetOptions):
    """What `report` has."""

    out: Annotated[Path, typer.Option("-o", "--out", help="The page, one HTML file.")] = Path("report.html")
    side: Annotated[int, typer.Option(min=64, max=2048, help="Pixels of the longer side of the page's pictures.")] = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How maps over a photo are drawn."""

    kind: Annotated[Kind, typer.Option(help="How a map and its photo are combined.")] = "blended_heat_map"
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the strongest parts of a map over the photo.")] = 0.75
    percentile: Percentile = 99.5
    cmap: ColorMap = None
    scale: Annotated[Scale, typer.Option(help="The colours' range: of each map, or of a method's.")] = "panel"
    background: Annotated[Background, typer.Option(help="The photo under a map.")] = "color"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionDrawing(Drawing):
    """The same for maps of regions, in which no single pixel stands out."""

    percentile: Percentile = 100.0


def with_option_groups(function: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is a dataclass by the fields of that class, as options."""
    parameters = inspect.signature(function, eval_str=True).parameters
    groups: dict[str, Any] = {
        name: parameter.annotation for name, parameter in parameters.items() if is_dataclass(parameter.annotation)
    }
    flat = []
    for name, parameter in parameters.items():
        if name not in groups:
            flat.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        hints = get_type_hints(groups[name], include_extras=True)
        for field in fields(groups[name]):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            annotation = hints[field.name]
            flat.append(
                inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            )

    @functools.wraps(function)
    def command(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        function(**values)

    command.__dict__["__signature__"] = inspect.Signature(flat)  # what Typer reads
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return command
