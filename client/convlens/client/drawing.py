"""Pictures of maps as arrays: a map, and the photo under it, become one RGB image.

Arrays of a result stay raw: clipping, scaling, upsampling and colours happen here, as a Style says. Result.overlay
returns such a picture, figures.py lays several of them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from convlens.client.errors import InvalidArgument

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

Floats = npt.NDArray[np.floating[Any]]
RGB = npt.NDArray[np.uint8]
"""uint8 (H,W,3)."""

Kind = Literal["blended_heat_map", "heat_map", "masked_image", "alpha_scaling", "original_image"]
"""The map over the photo, the map alone, the photo dark or transparent where the map is low, the photo alone."""
Sign = Literal["absolute", "positive", "negative", "both"]
Scale = Literal["panel", "shared"]
Background = Literal["color", "gray"]
SIGNS: Final = get_args(Sign)
MIN_SIDE: Final = 224
"""Pixels of the shorter side to which a smaller map without a photo is enlarged."""
_FULL_AT: Final = 2 / 3
"""The share of the strongest value at which a map over the photo has all its opacity."""
_LUMINANCE: Final = np.array([0.299, 0.587, 0.114], np.float32)
_OVER_PHOTO: Final = ((0.0, "#9b2964"), (0.25, "#cf4446"), (0.55, "#f37819"), (0.8, "#fbb61a"), (1.0, "#fcffa4"))
"""Inferno without its dark end, which would darken the photo around each bright place."""
_BOTH_OVER_PHOTO: Final = (
    (0.0, "#1546e0"), (0.47, "#7ab6ff"), (0.5, "#d0d0d0"), (0.53, "#ff9d7c"), (1.0, "#d9112b"),
)  # fmt: skip
"""Blue against the target, red for it: never white, since opacity fades weak values out."""


@dataclass(frozen=True, slots=True)
class Style:
    """How maps are drawn. InvalidArgument for a value that is not allowed."""

    kind: Kind = "blended_heat_map"
    """Named as in Captum's visualize_image_attr. masked_image multiplies the photo by the map scaled to 0…1, and
    alpha_scaling makes that its opacity, over white; of signed maps with both signs they take the positive values."""
    opacity: float = 0.75
    """Of the strongest parts of a blended heat map, 0…1. It falls with the value, so that zero leaves the photo as it
    is."""
    percentile: float = 99.5
    """Magnitudes above this percentile of a map are clipped to it, so that one pixel does not dim the others."""
    sign: Sign = "both"
    """Of signed maps: both, in two colours with zero in the middle; absolute; positive or negative (magnitudes)."""
    cmap: str | None = None
    """Color map of matplotlib. By default, colours that stay visible over a photo: magenta to yellow, and blue to red
    for both signs; heat maps alone in inferno and RdBu_r, activations in viridis."""
    scale: Scale = "panel"
    """The range of the colours: of each panel by itself, or shared by all images and targets of a method, to compare
    them; of activations by the channels drawn of a layer."""
    background: Background = "color"
    """The photo under a map in its colours, or in gray, where they compete with the map's."""
    columns: int = 5
    """Channels drawn of each layer of activations."""

    def __post_init__(self) -> None:
        for field, allowed in (("kind", Kind), ("sign", Sign), ("scale", Scale), ("background", Background)):
            if getattr(self, field) not in get_args(allowed):
                names = ", ".join(get_args(allowed))
                raise InvalidArgument(f"no {field} {getattr(self, field)!r}; allowed: {names}", field=field)
        if not 0 <= self.opacity <= 1 or not 0 < self.percentile <= 100:
            raise InvalidArgument("opacity must be in 0…1 and percentile above 0, up to 100", field="opacity")
        if self.columns < 1:
            raise InvalidArgument(f"columns must be 1 or more, not {self.columns}", field="columns")
        if self.cmap is not None:
            from matplotlib import colormaps

            if self.cmap not in colormaps:
                raise InvalidArgument(f"no colour map {self.cmap!r}; allowed: those of matplotlib", field="cmap")


@dataclass(frozen=True, slots=True)
class Heat:
    """One map as it is drawn: its values by the style's sign, unscaled, and the range of its colours."""

    values: Floats
    """(h,w); negative only where `diverging`."""
    diverging: bool
    """True if colours are symmetric about zero: the range is −limit…limit, otherwise 0…limit."""
    limit: float
    """The magnitude of the strongest colour; 0 for a map of zeros."""

    @property
    def low(self) -> float:
        """The value of the colours' low end."""
        return -self.limit if self.diverging else 0.0


def to_heat(map_: Floats, style: Style, *, signed: bool, limit: float | None = None) -> Heat:
    """Reduce a map (h,w), or (h,w,C) with its colour channels, to what is drawn of it.

    Maps whose values contradict `signed=False` are drawn as signed. `limit` replaces the map's own range.
    """
    values: Floats = np.nan_to_num(map_.astype(np.float32), posinf=0, neginf=0)
    signed = signed or bool(values.min() < 0)
    if values.ndim == 3:
        values = np.max(np.abs(values), axis=-1) if style.sign == "absolute" else np.sum(values, axis=-1)
    if signed and style.sign == "absolute":
        values = np.abs(values)
    elif signed and style.sign != "both":
        values = np.maximum(values if style.sign == "positive" else -values, 0)
    if limit is None:
        limit = strongest(values, style.percentile)
    return Heat(values, signed and style.sign == "both", limit)


def strongest(values: Floats, percentile: float) -> float:
    """Return the percentile of the magnitudes, or their maximum where that is 0."""
    magnitudes = np.abs(values)
    return float(np.percentile(magnitudes, percentile)) or float(magnitudes.max())


def compose(heat: Heat, photo: RGB | None, style: Style) -> RGB:
    """Draw a map over a photo (H,W,3), in the photo's size; without one the map alone, enlarged to MIN_SIDE.

    A value of zero leaves each pixel of a blended heat map exactly as it is in the photo.
    """
    if photo is not None and style.kind == "original_image":
        return photo
    height, width = photo.shape[:2] if photo is not None else enlarged(heat.values.shape)
    values = np.clip(resized(heat.values / (heat.limit or 1), height, width), -1 if heat.diverging else 0, 1)
    if photo is None or style.kind == "heat_map":
        return colored(values, heat, style)
    base = photo.astype(np.float32)
    if style.background == "gray":
        base = np.broadcast_to(np.rint(base @ _LUMINANCE)[..., None], photo.shape)
    if style.kind == "blended_heat_map":
        weight, top = style.opacity * _ramp(np.abs(values)), colored(values, heat, style).astype(np.float32)
    else:
        weight, top = 1 - np.maximum(values, 0), np.full_like(base, 255 if style.kind == "alpha_scaling" else 0)
    blended: RGB = np.rint(base + weight[..., None] * (top - base)).astype(np.uint8)
    return blended


def color_ramp(heat: Heat, style: Style, width: int = 256) -> RGB:
    """Return the colours of a map's range, low to high, as they come out over white (alpha scaling: black): (1,W,3)."""
    ramp = Heat(np.linspace(heat.low, heat.limit, width, dtype=np.float32)[None], heat.diverging, heat.limit)
    return compose(ramp, np.full((1, width, 3), 0 if style.kind == "alpha_scaling" else 255, np.uint8), style)


def colored(values: Floats, heat: Heat, style: Style) -> RGB:
    """Return the colours of scaled values (H,W), −1…1 where the map is diverging, otherwise 0…1."""
    colors: RGB = colormap(style, diverging=heat.diverging)((values + 1) / 2 if heat.diverging else values, bytes=True)
    return colors[..., :3]


def colormap(style: Style, *, diverging: bool) -> Colormap:
    """Return the style's color map, or the default of its kind."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    if style.cmap is not None:
        return colormaps[style.cmap]
    if style.kind == "heat_map":
        return colormaps["RdBu_r" if diverging else "inferno"]
    return LinearSegmentedColormap.from_list("convlens", _BOTH_OVER_PHOTO if diverging else _OVER_PHOTO)


def resized(values: Floats, height: int, width: int) -> Floats:
    """Resize (h,w) to (H,W) float32, by cubic interpolation with half-pixel centres, smoothed where it shrinks."""
    from PIL import Image

    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def enlarged(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return height and width multiplied by a whole number, so that the shorter side has MIN_SIDE pixels or more."""
    height, width = shape
    factor = -(-MIN_SIDE // min(height, width))
    return height * factor, width * factor


def _ramp(magnitudes: Floats) -> Floats:
    """Return opacities: 0 with slope 0 at 0, so that signs change without an edge, 1 with slope 0 from _FULL_AT on."""
    share = np.minimum(magnitudes / np.float32(_FULL_AT), 1)
    opacity: Floats = share * share * (3 - 2 * share)
    return opacity
