"""Figures of results with matplotlib, without a display: maps over the photo, and grids of layer outputs.

Arrays of a result stay raw; clipping, scaling and upsampling happen here, as Style says.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from convlens.client.errors import InvalidArgument
from convlens.client.images import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from convlens.client.result import Explanation, Result

Floats = npt.NDArray[np.floating[Any]]

Sign = Literal["absolute", "positive", "negative", "both"]
SIGNS: Final = get_args(Sign)
PANEL: Final = 2.9
"""Inches of one panel's side."""
DPI: Final = 110
_INK, _QUIET = "#1b1b1f", "#6b6b76"


@dataclass(frozen=True, slots=True)
class Style:
    """How maps are drawn."""

    overlay: bool = True
    """Draw maps over the photo; False for the map alone."""
    opacity: float = 0.65
    """Of the strongest parts of an overlay, 0…1; weak parts are more transparent."""
    percentile: float = 99.5
    """Values above this percentile of a map are clipped to it, so that one pixel does not dim the others."""
    sign: Sign = "absolute"
    """Of signed maps: absolute, positive, negative (magnitudes), or both, around zero in the middle of the colours."""
    cmap: str | None = None
    """Color map of matplotlib; by default inferno, viridis for activations, RdBu_r for both signs."""
    columns: int = 5
    """Channels drawn of each layer of activations."""

    def __post_init__(self) -> None:
        if self.sign not in SIGNS:
            raise InvalidArgument(f"no sign {self.sign!r}; allowed: {', '.join(SIGNS)}", field="sign")
        if not 0 <= self.opacity <= 1 or not 0 < self.percentile <= 100:
            raise InvalidArgument("opacity must be in 0…1 and percentile above 0, up to 100", field="opacity")
        if self.columns < 1:
            raise InvalidArgument(f"columns must be 1 or more, not {self.columns}", field="columns")
        if self.cmap is not None:
            from matplotlib import colormaps

            if self.cmap not in colormaps:
                raise InvalidArgument(f"no colour map {self.cmap!r}; allowed: those of matplotlib", field="cmap")


def maps(result: Result, image: int, style: Style) -> Figure:
    """Draw one image: the photo, then each of its maps, titled with what it explains."""
    panels = _panels(result, image)
    photo = _photo(result, image)
    if not panels:
        return layers(result, image, style)
    shown = len(panels) + (photo is not None)
    columns = min(shown, 5)
    lines = math.ceil(shown / columns)
    figure = _figure(columns * PANEL, lines * (PANEL + 0.55))
    axes = iter(figure.subplots(lines, columns, squeeze=False).flat)
    if photo is not None:
        at = next(axes)
        at.imshow(photo)
        _title(at, "image", _best(result, image))
    for name, map_, explained in panels:
        at = next(axes)
        draw(at, map_, photo if style.overlay else None, style)
        _title(at, name, _caption(explained))
    for at in axes:
        at.set_visible(False)
    return figure


def layers(result: Result, image: int, style: Style) -> Figure:
    """Draw the outputs of layers as a grid: layers as rows, their first channels as columns."""
    outputs = {name: result.restored(name)[image] for name in result if name.startswith("activations/")}
    grids = [(name, np.atleast_3d(output)) for name, output in outputs.items() if output.ndim >= 2]
    if not grids:
        raise InvalidArgument("the result has neither maps nor layers with an extent in space", field="image")
    columns = max(min(style.columns, output.shape[-1]) for _, output in grids)
    figure = _figure(columns * PANEL * 0.8, len(grids) * (PANEL * 0.8 + 0.3))
    axes = figure.subplots(len(grids), columns, squeeze=False)
    for row, (name, output) in zip(axes, grids, strict=True):
        for channel, at in enumerate(row):
            if channel >= output.shape[-1]:
                at.set_visible(False)
                continue
            at.imshow(output[..., channel], cmap=style.cmap or "viridis", interpolation="nearest")
            number = result.channels[name][channel] if name in result.channels else channel
            _title(at, name.partition("/")[2], "" if outputs[name].ndim == 2 else f"channel {number}")
    return figure


def save(result: Result, folder: Path, style: Style) -> list[Path]:
    """Write map figures and layer grids as pictures, and all arrays as arrays.npz, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    count = len(result.predictions)
    written = []
    for i in range(count):
        tail = "" if count == 1 else f"_{i:03d}"
        if _panels(result, i):
            written.append(folder / f"maps{tail}.png")
            written[-1].write_bytes(encoded(maps(result, i, style)))
        if any(name.startswith("activations/") and array.ndim >= 3 for name, array in result.items()):
            written.append(folder / f"layerwise_output{tail}.jpg")
            written[-1].write_bytes(encoded(layers(result, i, style), "jpg"))
    written.append(folder / "arrays.npz")
    arrays: dict[str, Any] = {name.replace("/", "."): array for name, array in result.items()}
    np.savez(written[-1], **arrays)
    return written


def encoded(figure: Figure, kind: str = "png") -> bytes:
    """Return the figure as the bytes of a file; `kind` is any format that matplotlib writes."""
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=DPI, facecolor="white", bbox_inches="tight")
    return file.getvalue()


def draw(at: Axes, map_: Floats, photo: npt.NDArray[np.uint8] | None, style: Style) -> None:
    """Draw one map (h,w) or (h,w,3) on `at`, over `photo` if there is one."""
    values, low, both = _scaled(map_, style)
    name = style.cmap or ("RdBu_r" if both else "inferno")
    if photo is None:
        at.imshow(values, cmap=name, vmin=low, vmax=1, interpolation="bilinear")
        return
    height, width = photo.shape[:2]
    at.imshow(np.dot(photo[..., :3], [0.299, 0.587, 0.114]), cmap="gray", vmin=0, vmax=255, alpha=0.9)
    strength = np.abs(_resized(values, height, width))
    at.imshow(
        _resized(values, height, width),
        cmap=name,
        vmin=low,
        vmax=1,
        alpha=style.opacity * np.clip(strength, 0, 1) ** 0.5,
    )


def _scaled(map_: Floats, style: Style) -> tuple[Floats, float, bool]:
    """Scale a map to 0…1, or −1…1 for both signs, clipped at the percentile; a flat map becomes zeros, never NaN."""
    values = map_.astype(np.float64)
    signed = values.ndim == 3 or bool(values.min() < 0)
    if signed and style.sign == "absolute":
        values = np.abs(values)
        values = values.max(-1) if values.ndim == 3 else values
    elif values.ndim == 3:
        values = values.sum(-1)
    both = signed and style.sign == "both"
    if signed and style.sign in {"positive", "negative"}:
        values = np.maximum(values if style.sign == "positive" else -values, 0)
    top = float(np.percentile(np.abs(values), style.percentile)) or float(np.abs(values).max())
    if top > 0:
        values = np.clip(values / top, -1, 1)
    return values, -1.0 if both else 0.0, both


def _resized(values: Floats, height: int, width: int) -> Floats:
    """Resize bilinearly, with half-pixel centres."""
    from PIL import Image

    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float64)


def _panels(result: Result, image: int) -> list[tuple[str, Floats, Explanation | None]]:
    """Return every map of an image, one per target, with what it explains."""
    panels: list[tuple[str, Floats, Explanation | None]] = []
    for name in result:
        if name.startswith("activations/"):
            continue
        array = result.restored(name)
        explained = result.explained[image].get(name)
        if explained and result.has_target_axis:
            panels += [(name, array[image, t], target) for t, target in enumerate(explained)]
        else:
            panels.append((name, array[image], explained))
    return panels


def _photo(result: Result, image: int) -> npt.NDArray[np.uint8] | None:
    """Return the photo as the network saw it, at its own size; None for a job from another process."""
    return np.asarray(picture(result.images[image])) if image < len(result.images) else None


def _best(result: Result, image: int) -> str:
    """Return the predicted class of an image."""
    predictions = result.predictions[image]
    if not predictions:
        return ""
    return f"predicted: {predictions[0]}"


def _caption(explained: Explanation | None) -> str:
    if explained is None:
        return ""
    label = "all units" if explained.index < 0 else explained.label or f"unit {explained.index}"
    return f"{label} · {explained.kind} {explained.score:.2f}"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _title(at: Axes, name: str, caption: str) -> None:
    at.set_axis_off()
    at.set_title(name, fontsize=10, color=_INK, loc="left", pad=14 if caption else 6, parse_math=False)
    if caption:
        at.text(0, 1.015, caption, transform=at.transAxes, fontsize=8, color=_QUIET, va="bottom", parse_math=False)
