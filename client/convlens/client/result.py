"""Results: arrays by name, what each of them explains, and their pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, overload

from convlens.client.extras import is_installed, require_extra
from convlens.client.images import pack_one
from convlens.client.result_data import Explanation, MapExplanation, Prediction, ResultData, Timing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image as PillowImage

    from convlens.client.arrays import ValueRange
    from convlens.client.drawing import Background, Kind, Scale, Sign
    from convlens.client.images import ImageLike

__all__ = ["Explanation", "MapExplanation", "Prediction", "Result", "Timing"]


class Result(ResultData):
    """Arrays by name, batch first: saliency, saliency/guided, grad_cam, activations/LAYER…

    A name's beginning will do where only one array has it: result["grad_cam"] finds grad_cam/block4_conv3. A result is
    a value: it pickles and needs no connection.
    """

    @overload
    def figure(
        self, image: int = 0, *, name: str | None = None, target: int | None = None, ax: None = None,
        kind: Kind = ..., opacity: float = ..., percentile: float = ..., sign: Sign = ..., cmap: str | None = ...,
        scale: Scale = ..., background: Background = ..., columns: int = ...,
    ) -> Figure: ...  # fmt: skip
    @overload
    def figure(
        self, image: int = 0, *, name: str | None = None, target: int | None = None, ax: Axes,
        kind: Kind = ..., opacity: float = ..., percentile: float = ..., sign: Sign = ..., cmap: str | None = ...,
        scale: Scale = ..., background: Background = ..., columns: int = ...,
    ) -> None: ...  # fmt: skip
    def figure(
        self, image: int = 0, *, name: str | None = None, target: int | None = None, ax: Axes | None = None,
        kind: Kind = "blended_heat_map", opacity: float = 0.75, percentile: float = 99.5, sign: Sign = "both",
        cmap: str | None = None, scale: Scale = "panel", background: Background = "color", columns: int = 5,
    ) -> Figure | None:  # fmt: skip
        """Draw an image and its maps side by side, as a matplotlib figure; a grid of layers if there are no maps.

        A notebook shows the figure where this is the last line of a cell. With `ax`, one map is drawn on it, and None
        is returned, since its figure is yours to show: the map called `name`, of several targets the one at position
        `target`. drawing.Style documents the other options. InvalidArgument for values that are not allowed, KeyError
        for a name that is not there, MissingExtra without convlens-client[figures].
        """
        require_extra("figures", "figure()")
        from convlens.client import figures
        from convlens.client.drawing import Style

        style = Style(kind, opacity, percentile, sign, cmap, scale, background, columns)
        if ax is None:
            return figures.result_figure(self, image, style, name, target)
        figures.draw_on(ax, self, image, style, name, target)
        return None

    def overlay(
        self, name: str, index: int = 0, target: int = 0, *, photo: ImageLike | None = None,
        value_range: ValueRange | None = None, kind: Kind = "blended_heat_map", opacity: float = 0.75,
        percentile: float = 99.5, sign: Sign = "both", cmap: str | None = None, scale: Scale = "panel",
        background: Background = "color",
    ) -> PillowImage:  # fmt: skip
        """Draw one map over its photo: a Pillow image in RGB, as large as the photo.

        `index` is the image, `target` the position on the target axis, if there is one. `photo` replaces the image as
        it was sent, which a result of Client.job() does not have; `value_range` is that of a photo of floats. A heat
        map alone needs no photo: it is then 224 pixels or more on its shorter side. drawing.Style documents the other
        options. InvalidArgument for values that are not allowed and without a photo, KeyError for a name that is not
        there, MissingExtra without convlens-client[figures].
        """
        require_extra("figures", "overlay()")
        from convlens.client import figures
        from convlens.client.drawing import Style

        style = Style(kind, opacity, percentile, sign, cmap, scale, background)
        packed = None if photo is None else pack_one(photo, value_range)
        return figures.overlay(self, name, index, target, packed, style)

    def _repr_html_(self) -> str | None:
        """Return what a notebook shows: images, maps and predictions; None without convlens-client[figures]."""
        if not is_installed("figures"):
            return None
        from convlens.client import notebook

        return notebook.to_html(self)

    def save(
        self, folder: str | Path, *, kind: Kind = "blended_heat_map", opacity: float = 0.75, percentile: float = 99.5,
        sign: Sign = "both", cmap: str | None = None, scale: Scale = "panel", background: Background = "color",
        columns: int = 5,
    ) -> list[Path]:  # fmt: skip
        """Write pictures and arrays into `folder` and return their paths; each file is complete or not there.

        drawing.Style documents the options. InvalidArgument for values that are not allowed and MissingExtra without
        convlens-client[figures], before anything is written.
        """
        require_extra("figures", "save()")
        from convlens.client import saving
        from convlens.client.drawing import Style

        style = Style(kind, opacity, percentile, sign, cmap, scale, background, columns)
        return saving.save(self, Path(folder), style)
