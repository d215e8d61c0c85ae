"""Figures of results with matplotlib, without a display: an image's maps side by side, and grids of layer outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from convlens.client.drawing import RGB, Floats, Heat, Style, color_ramp, compose, strongest, to_heat
from convlens.client.errors import InvalidArgument
from convlens.client.images import SentImage, picture
from convlens.client.options import is_signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image as PillowImage

    from convlens.client.notebook_figure import NotebookFigure
    from convlens.client.result_data import Explanation, ResultData

PANEL: Final = 2.9
"""Inches of one panel's longer side."""
MAX_PIXELS: Final = 1024
"""Of the longer side of a photo in a figure; larger ones are reduced."""
_COLUMNS: Final = 5
_LETTER: Final = 0.65
"""The mean width of a letter, as a share of the type's size."""
_MARGIN: Final = 0.2
"""Inches between panels."""
_INK, _QUIET = "#1b1b1f", "#6b6b76"


@dataclass(frozen=True, slots=True)
class Panel:
    """One map of one image, for one target."""

    name: str
    heat: Heat
    explained: Explanation | None


def result_figure(result: ResultData, image: int, style: Style, name: str | None, target: int | None) -> NotebookFigure:
    """Draw an image: all its maps, or those of one array or target alone. See Result.figure()."""
    if name is None and target is None:
        return map_figure(result, image, style)
    return _grid(list(panels_of(result, image, style, name, target)), result, image, style)


def draw_on(ax: Axes, result: ResultData, image: int, style: Style, name: str | None, target: int | None) -> None:
    """Draw one map of an image on `ax`. InvalidArgument unless `name` and `target` choose one. See Result.figure()."""
    panels = list(panels_of(result, image, style, name, target))
    if len(panels) != 1:
        names = ", ".join(map_names(result))
        raise InvalidArgument(
            f"ax is for one map, and the image has {len(panels)}; choose by name ({names}) and target", field="name"
        )
    width = ax.get_window_extent().width / ax.figure.dpi
    draw_panel(ax, panels[0], photo_of(result, image), style, width)


def overlay(
    result: ResultData, name: str, image: int, target: int, photo: SentImage | None, style: Style
) -> PillowImage:
    """Draw one map over `photo`, by default the result's own. See Result.overlay()."""
    from PIL import Image

    (panel,) = panels_of(result, image, style, name, target)
    if photo is None and image < len(result.images):
        photo = result.images[image]
    if photo is None and style.kind != "heat_map":
        raise InvalidArgument(
            "the result does not have the photo, since its job is from another process: give it as photo=, "
            'or draw the map alone by kind="heat_map"',
            field="photo",
        )
    return Image.fromarray(compose(panel.heat, None if photo is None else np.asarray(picture(photo)), style))


def map_figure(result: ResultData, image: int, style: Style, limits: dict[str, float] | None = None) -> NotebookFigure:
    """Draw one image: the photo, then each of its maps with what it explains; its layers if there are no maps.

    `limits` are those of shared_limits(), computed here unless the caller draws several images.
    """
    panels = list(panels_of(result, image, style, limits=limits))
    return _grid(panels, result, image, style) if panels else layer_figure(result, image, style)


def _grid(panels: list[Panel], result: ResultData, image: int, style: Style) -> NotebookFigure:
    """Draw the photo, then panels."""
    photo = photo_of(result, image)
    if style.kind == "original_image" and photo is not None:
        panels = []
    shown = len(panels) + (photo is not None)
    columns = min(shown, _COLUMNS)
    lines = math.ceil(shown / columns)
    height, width = photo.shape[:2] if photo is not None else panels[0].heat.values.shape
    longer = max(height, width)
    side = PANEL * max(width / longer, 0.6)
    figure = _figure(columns * side, lines * (PANEL * height / longer + 0.75))
    axes = iter(figure.subplots(lines, columns, squeeze=False).flat)
    if photo is not None:
        at = next(axes)
        at.imshow(photo)
        _title(at, "image", _best(result, image), side)
    for panel in panels:
        draw_panel(next(axes), panel, photo, style, side)
    for at in axes:
        at.set_visible(False)
    return figure


def draw_panel(at: Axes, panel: Panel, photo: RGB | None, style: Style, width: float) -> None:
    """Draw one map on `at`, `width` inches wide, with its name, what it explains, and the range of its colours."""
    if photo is None:
        style = replace(style, kind="heat_map")
    at.imshow(compose(panel.heat, photo, style))
    _title(at, panel.name, caption_of(panel.explained), width)
    if style.kind != "original_image":
        _color_bar(at, panel.heat, style)


def panels_of(
    result: ResultData, image: int, style: Style, name: str | None = None, target: int | None = None,
    limits: dict[str, float] | None = None,
) -> Iterator[Panel]:  # fmt: skip
    """Yield the maps of an image, one per target; or those of one array, or of one target, alone.

    InvalidArgument where there is no such image, map or target.
    """
    _check_index(image, len(result.explained), "image")
    if limits is None and style.scale == "shared":
        limits = shared_limits(result, style)
    part = result.split()[image]
    for key in [result.full_name(name)] if name is not None else map_names(result):
        array = part.restored(key)[0]
        explained = list(part.explained[0].get(key, ()))
        maps = list(array) if result.has_target_axis and not key.startswith("activations/") else [array]
        if target is not None:
            _check_index(target, len(maps), "target")
        for t, map_ in enumerate(maps):
            if target is None or t == target:
                _check_map(key, map_)
                heat = to_heat(map_, style, signed=is_signed(key), limit=(limits or {}).get(key))
                yield Panel(key, heat, explained[t] if t < len(explained) else None)


def shared_limits(result: ResultData, style: Style) -> dict[str, float]:
    """Return the range of each method's maps, over all images and targets."""
    limits: dict[str, float] = {}
    for part in result.split():
        for name in map_names(result):
            maps = part.restored(name)[0]
            for map_ in maps if result.has_target_axis else [maps]:
                limits[name] = max(limits.get(name, 0.0), to_heat(map_, style, signed=is_signed(name)).limit)
    return limits


def layer_figure(result: ResultData, image: int, style: Style) -> NotebookFigure:
    """Draw the outputs of layers as a grid: layers as rows, their first channels as columns."""
    _check_index(image, len(result.explained), "image")
    part = result.split()[image]
    outputs = {name: part.restored(name)[0] for name in layer_names(part)}
    if not outputs:
        raise InvalidArgument("the result has neither maps nor layers with an extent in space", field="image")
    columns = max(min(style.columns, np.atleast_3d(output).shape[-1]) for output in outputs.values())
    side = PANEL * 0.8
    figure = _figure(columns * side, len(outputs) * (side + 0.45))
    axes = figure.subplots(len(outputs), columns, squeeze=False)
    for row, (name, output) in zip(axes, outputs.items(), strict=True):
        drawn = np.atleast_3d(output)[..., :columns]
        numbers = result.channels.get(name, range(drawn.shape[-1]))
        limit = strongest(drawn, style.percentile) if style.scale == "shared" else None
        for channel, at in enumerate(row):
            if channel >= drawn.shape[-1]:
                at.set_visible(False)
                continue
            caption = "" if output.ndim == 2 else f"channel {numbers[channel]} · "
            caption += _draw_channel(at, drawn[..., channel], style, limit, signed=bool(drawn.min() < 0))
            title = f"{name.partition('/')[2]} · {'×'.join(map(str, output.shape))}" if channel == 0 else ""
            _title(at, title, caption, columns * side)
    return figure


def _draw_channel(at: Axes, values: Floats, style: Style, limit: float | None, *, signed: bool) -> str:
    """Draw one channel, pixel by pixel, and return its range; signed layers have zero in the middle of the colours."""
    low, high = float(values.min()), float(values.max())
    top = limit or max(abs(low), abs(high))
    bounds = (-top, top) if signed else (low, high) if limit is None else (0.0, top)
    at.imshow(values, cmap=style.cmap or ("RdBu_r" if signed else "viridis"), vmin=bounds[0], vmax=bounds[1])
    return f"{low:.3g} … {high:.3g}"


def map_names(result: ResultData) -> list[str]:
    """Return the names of the arrays that are maps."""
    return [name for name in result if not name.startswith("activations/")]


def layer_names(result: ResultData) -> list[str]:
    """Return the names of the layer outputs that have an extent in space."""
    return [name for name, array in result.items() if name.startswith("activations/") and array.ndim >= 3]


def photo_of(result: ResultData, image: int) -> RGB | None:
    """Return the photo as the network saw it, at its own size up to MAX_PIXELS; None for a job from another process."""
    if image >= len(result.images):
        return None
    photo = picture(result.images[image])
    photo.thumbnail((MAX_PIXELS, MAX_PIXELS))
    return np.asarray(photo)


def _color_bar(at: Axes, heat: Heat, style: Style) -> None:
    """Draw the colours below a panel, with their range."""
    if not heat.limit:
        at.text(0.5, -0.02, "zero everywhere", transform=at.transAxes, fontsize=7, color=_QUIET, ha="center", va="top")
        return
    bar = at.inset_axes((0, -0.05, 1, 0.025))
    bar.imshow(color_ramp(heat, style), aspect="auto", extent=(heat.low, heat.limit, 0, 1))
    ticks = [heat.low, 0, heat.limit] if heat.diverging else [0, heat.limit]
    bar.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks], fontsize=7, color=_QUIET)
    bar.set_yticks([])
    bar.tick_params(length=0, pad=2)
    for spine in bar.spines.values():
        spine.set_color("#c8c8cf")
        spine.set_linewidth(0.5)
    labels = bar.get_xticklabels()
    labels[0].set_horizontalalignment("left")
    labels[-1].set_horizontalalignment("right")


def _check_index(index: int, count: int, field: str) -> None:
    if not 0 <= index < count:
        raise InvalidArgument(f"{field} is {index}; allowed: {'0' if count == 1 else f'0…{count - 1}'}", field=field)


def _check_map(name: str, map_: Floats) -> None:
    """Refuse a layer's outputs that are not one map."""
    if name.startswith("activations/") and map_.ndim != 2:
        raise InvalidArgument(
            f"{name} has the shape {map_.shape}, which is not one map; reduce its channels, such as by "
            'Activations(layers, reduction="mean"), or draw all with figure()',
            field="name",
        )


def _best(result: ResultData, image: int) -> str:
    """Return the predicted class of an image."""
    predictions = result.predictions[image]
    return f"predicted: {predictions[0]}" if predictions else ""


def caption_of(explained: Explanation | None) -> str:
    """Return what a map explains: the class and its score."""
    if explained is None:
        return ""
    label = "all units" if explained.index < 0 else explained.label or f"unit {explained.index}"
    return f"{label} · {explained.kind} {explained.score:.2f}"


def _figure(width: float, height: float) -> NotebookFigure:
    from convlens.client.notebook_figure import NotebookFigure

    return NotebookFigure(figsize=(width, height), layout="constrained")


def _title(at: Axes, name: str, caption: str, width: float) -> None:
    """Write a title over a line in small type, both made to fit into `width` inches."""
    at.set_axis_off()
    text, size = _fit(name, width, 10)
    at.set_title(text, fontsize=size, color=_INK, loc="left", pad=16 if caption else 6, parse_math=False)
    if caption:
        text, size = _fit(caption, width, 8)
        at.text(0, 1.015, text, transform=at.transAxes, fontsize=size, color=_QUIET, va="bottom", parse_math=False)


def _fit(text: str, width: float, size: float) -> tuple[str, float]:
    """Return the text and its size in points for `width` inches: smaller down to 7, then without its middle."""
    letters = (width - _MARGIN) * 72 / _LETTER  # of one point
    size = min(size, max(7.0, letters / max(len(text), 1)))
    most = max(int(letters / size), 8)
    return (text if len(text) <= most else f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"), size
