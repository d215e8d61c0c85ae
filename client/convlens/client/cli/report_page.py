"""The page of `convlens report`: one HTML file that needs nothing else, with its pictures inside.

Each image is written to a temporary file as it comes; the table of contents, which is known at the end, goes before it.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from string import Template
from types import TracebackType
from typing import IO, Final, Self

import numpy as np
from PIL import Image

from convlens.client import ConvlensError, InvalidArgument, Prediction, Result
from convlens.client.batching import ItemError
from convlens.client.cli.terminal import visible
from convlens.client.drawing import RGB, Floats, Heat, Style, color_ramp, compose
from convlens.client.figures import caption_of, layer_names, panels_of
from convlens.client.images import picture
from convlens.client.saving import write_whole

QUALITY: Final = 80
"""Of WebP: at 240 pixels some 7 kB a picture of a photo."""
BAR: Final = 4
"""Pixels of a colour bar, and of the gap above it."""
TEMPLATE: Final = Template((Path(__file__).with_name("report.html")).read_text(encoding="utf-8"))


class ReportPage:
    """The images of a report, in order, and the page of them. A `with` bounds the life of its temporary file."""

    def __init__(self, folder: Path, style: Style, side: int) -> None:
        self._folder = folder
        """Above all images, whose names on the page are relative to it."""
        self._style = style
        self._side = side
        """Pixels of the longer side of a picture."""
        self._articles: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__()
        self._contents: dict[str, list[str]] = {}
        """By predicted class, links to its images."""
        self.count = 0
        self.errors: list[tuple[Path, ItemError]] = []
        """The images without a result."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._articles.close()

    def add(self, path: Path, result: Result) -> None:
        """Add an image, by its result of one image. InvalidArgument where its file cannot be read on this machine."""
        photo = _thumbnail(result, self._side)
        self.count += 1
        name = self._name(path)
        best = next(iter(result.predictions[0]), None)
        predicted = best.label or f"class {best.index}" if best else "no prediction"
        link = f'<a href="#image-{self.count}">{text(name)}</a> {text(best.certainty if best else "")}'
        self._contents.setdefault(predicted, []).append(link)
        for part in self._article(name, photo, result):
            self._articles.write(_encoded(part))

    def write(self, out: Path, title: str, facts: Mapping[str, object]) -> None:
        """Write the page, whole or not at all."""
        head, tail = TEMPLATE.substitute(
            title=text(title),
            contents="".join(self._contents_of_classes()) or "<p>No image has a result.</p>",
            errors="".join(self._error_list()),
            facts="".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>\n" for name, value in facts.items()),
            articles="\0",
        ).split("\0")

        def write_parts(file: IO[bytes]) -> None:
            file.write(_encoded(head))
            self._articles.seek(0)
            shutil.copyfileobj(self._articles, file)
            file.write(_encoded(tail))

        write_whole(out, write_parts)

    def _contents_of_classes(self) -> Iterator[str]:
        for name, links in sorted(self._contents.items(), key=lambda entry: (-len(entry[1]), entry[0])):
            items = "".join(f"<li>{link}</li>" for link in links)
            yield f"<details open><summary>{text(name)} <b>{len(links)}</b></summary><ul>{items}</ul></details>\n"

    def _error_list(self) -> Iterator[str]:
        if not self.errors:
            return
        yield f'<section id="errors"><h2>Without a result: {len(self.errors)}</h2><ul>\n'
        for path, error in self.errors:
            reason = error.message if isinstance(error, ConvlensError) else error.strerror or error
            yield f"<li><b>{text(self._name(path))}</b>: {text(str(reason).removeprefix(f'{path}: '))}</li>\n"
        yield "</ul></section>\n"

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self._folder)

    def _article(self, name: str, photo: RGB, result: Result) -> Iterator[str]:
        yield f'<article id="image-{self.count}"><h3>{text(name)}</h3><div class="pictures">\n'
        yield _figure(photo, name, "image", "")
        for panel in panels_of(result, 0, self._style):
            caption = caption_of(panel.explained)
            bounds = f"{panel.heat.low:.3g} … {panel.heat.limit:.3g}" if panel.heat.limit else "zero everywhere"
            alt = f"{panel.name} of {name}, explaining {caption}"
            drawn = with_color_bar(compose(panel.heat, photo, self._style), panel.heat, self._style)
            yield _figure(drawn, alt, panel.name, f"{caption} · {bounds}")
        yield from self._layers(name, result)
        yield f'</div><ol class="classes">{"".join(map(_class_bar, result.predictions[0]))}</ol></article>\n'

    def _layers(self, image: str, result: Result) -> Iterator[str]:
        for name in layer_names(result):
            output = np.atleast_3d(result.restored(name)[0])[..., : self._style.columns]
            layer = name.partition("/")[2]
            shown = result.channels.get(name, range(output.shape[-1]))[: output.shape[-1]]
            channels = "channels " + ", ".join(map(str, shown))
            strip = channel_strip(output, self._style, self._side // 2)
            yield _figure(strip, f"{channels} of {layer} of {image}", layer, channels, "layer")


def _thumbnail(result: Result, side: int) -> RGB:
    """Return the image of a result, `side` pixels long at most."""
    try:
        photo = picture(result.images[0])
    except (OSError, SyntaxError, ValueError) as error:  # the last two: what Pillow's parsers and PictureError are
        raise InvalidArgument(f"the image cannot be drawn here: {error}", field="images") from error
    photo.thumbnail((side, side))
    return np.asarray(photo)


def with_color_bar(drawn: RGB, heat: Heat, style: Style) -> RGB:
    """Return the picture of a map with the colours of its range below."""
    width = drawn.shape[1]
    gap, ramp = np.full((BAR, width, 3), 255, np.uint8), np.repeat(color_ramp(heat, style, width), BAR, axis=0)
    return np.concatenate([drawn, gap, ramp])


def channel_strip(output: Floats, style: Style, height: int) -> RGB:
    """Return the channels of a layer (h,w,C) side by side, each in the colours of its own range.

    Those of a layer with negative values have zero in the middle of the colours.
    """
    from matplotlib import colormaps

    is_signed = bool(output.min() < 0)
    colors = colormaps[style.cmap or ("RdBu_r" if is_signed else "viridis")]
    tiles = []
    for channel in np.moveaxis(output, -1, 0):
        high = float(np.abs(channel).max() if is_signed else channel.max())
        low = -high if is_signed else float(channel.min())
        tile = Image.fromarray(colors((channel - low) / ((high - low) or 1), bytes=True)[..., :3])
        width = max(1, round(height * channel.shape[1] / channel.shape[0]))
        tiles.append(np.asarray(tile.resize((width, height), Image.Resampling.NEAREST)))
    strip: RGB = np.concatenate(tiles, axis=1)
    return strip


def text(value: object) -> str:
    """Return a text in which nothing is markup, and nothing reorders or hides what follows it."""
    return escape(visible(value, "\n"))


def _encoded(html: str) -> bytes:
    return html.encode("utf-8", "backslashreplace")


def _figure(pixels: RGB, alt: str, name: str, caption: str, kind: str = "map") -> str:
    height, width = pixels.shape[:2]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=QUALITY)
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure class="{kind}"><img loading="lazy" width="{width}" height="{height}" alt="{text(alt)}" '
        f'src="data:image/webp;base64,{data}"><figcaption><b>{text(name)}</b> {text(caption)}</figcaption></figure>\n'
    )


def _class_bar(prediction: Prediction) -> str:
    share = prediction.probability or 0.0
    return f'<li style="--share: {share:.4f}">{text(prediction)}</li>'
