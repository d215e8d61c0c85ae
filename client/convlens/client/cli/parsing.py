"""Values as they are typed: targets, channels, baselines, value ranges, times. A usage error says what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

import typer

from convlens.client.arrays import ValueRange, wire_range
from convlens.client.drawing import Style
from convlens.client.errors import InvalidArgument
from convlens.client.options import COLORS, Blur, Color
from convlens.client.targets import ALL_UNITS, Target, TopK
from convlens.client.timeouts import checked_timeout


def parse_target(text: str | None) -> Target:
    """Return a target; None, the predicted class, for None."""
    if text is None:
        return None
    if text == "all":
        return ALL_UNITS
    digits = text.removeprefix("top")
    if digits.isdecimal():
        return TopK(int(digits)) if text.startswith("top") else int(digits)
    if not text.strip() or text.startswith("-"):
        raise typer.BadParameter(f"{text!r} is none; allowed: a class index or label, topN, all", param_hint="--target")
    return text


def parse_value_range(text: str) -> ValueRange | None:
    """Return a value range, typed as 0,1 or 0:1; None if it is empty."""
    if not text:
        return None
    try:
        black, white = (float(part) for part in re.split("[,:]", text))
        wire_range((black, white))
    except ValueError as error:  # InvalidArgument is one
        message = f"{text!r} is none; allowed: 0,255, 0,1 and -1,1"
        raise typer.BadParameter(message, param_hint="--value-range") from error
    return black, white


def parse_channels(text: str) -> list[int] | None:
    """Return channels, typed as 0-4,17; None if it is empty."""
    channels: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal()) or int(last or first) < int(first):
            raise typer.BadParameter(f"{part!r} is none; allowed: such as 0-4,17", param_hint="--channels")
        channels += range(int(first), int(last or first) + 1)
    return channels or None


def parse_baseline(text: str) -> Color | Blur:
    """Return a baseline: blur, the name of a color, or R,G,B."""
    if text == "blur":
        return Blur()
    try:
        return [float(part) for part in COLORS[text]] if text in COLORS else [float(part) for part in text.split(",")]
    except ValueError as error:
        message = f"{text!r} is none; allowed: blur, {', '.join(COLORS)}, R,G,B"
        raise typer.BadParameter(message, param_hint="--baseline") from error


def check_colormap(name: str | None) -> str | None:
    """Refuse a color map that does not exist before anything is computed."""
    try:
        return Style(cmap=name).cmap
    except InvalidArgument as error:
        raise typer.BadParameter(error.message) from error


def check_seconds(field: str) -> Callable[[float], float]:
    """Return a check that refuses what is no time."""

    def check(seconds: float) -> float:
        try:
            return checked_timeout(seconds, seconds, field)
        except InvalidArgument as error:
            raise typer.BadParameter(error.message) from error

    return check


def one_of(names: Collection[str]) -> Callable[[str], str]:
    """Return a check that refuses what is not among `names`."""

    def check(name: str) -> str:
        if name not in names:
            raise typer.BadParameter(f"{name!r} is none; allowed: {', '.join(names)}")
        return name

    return check
