"""The commands that compute maps of photos."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from convlens.client.cli.explain import explain_files
from convlens.client.cli.options import (
    Channels,
    ColorMap,
    Drawing,
    Images,
    Layers,
    MapOptions,
    RegionDrawing,
    ReportOptions,
    TargetOptions,
    with_option_groups,
)
from convlens.client.cli.parsing import one_of, parse_baseline, parse_channels
from convlens.client.cli.report import write_report
from convlens.client.cli.terminal import note
from convlens.client.drawing import Sign, Style
from convlens.client.model_card import ModelCard
from convlens.client.options import (
    CAM_METHODS,
    REDUCTIONS,
    SALIENCY_METHODS,
    Activations,
    GradCAM,
    Occlusion,
    Saliency,
    Visualization,
)

DRAWN_CHANNELS: Final = 5
"""Channels of a layer that are drawn, unless some are picked."""
Method = Any
"""A method or reduction whose name one_of() has checked."""


def _style(drawing: Drawing, sign: Sign = "both") -> Style:
    return Style(
        drawing.kind, drawing.opacity, drawing.percentile, sign, drawing.cmap, drawing.scale, drawing.background
    )  # fmt: skip


@with_option_groups
def saliency(
    images: Images,
    options: TargetOptions,
    drawing: Drawing,
    method: Annotated[
        str, typer.Option(callback=one_of(SALIENCY_METHODS), help=f"One of {', '.join(SALIENCY_METHODS)}.")
    ] = "vanilla",
    signed: Annotated[bool, typer.Option("--signed", help="Keep signs and colour channels.")] = False,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Noisy copies of the smooth methods; 25.", show_default=False)
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="Their σ as a share of the image's range; 0.15.", show_default=False)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of a path from each baseline; 25.", show_default=False)
    ] = None,
    baselines: Annotated[
        list[str],
        typer.Option("--baseline", help="black, white, gray, blur or R,G,B; black and white.", show_default=False),
    ] = [],  # noqa: B006 - typer's way
    sign: Annotated[Sign, typer.Option(help="What is drawn of a signed map.")] = "both",
) -> None:
    """Which pixels the class's score hangs on: its gradient, and what is made of it."""
    name: Method = method
    starts = [parse_baseline(text) for text in baselines]
    visualization = Saliency(name, signed, samples=samples, noise=noise, steps=steps, baselines=starts)
    explain_files(images, [visualization], options, _style(drawing, sign))


@with_option_groups
def grad_cam(
    images: Images,
    options: TargetOptions,
    drawing: RegionDrawing,
    layers: Annotated[
        list[str],
        typer.Option("--layer", help="A convolution or pooling layer, or several; the last one."),
    ] = [],  # noqa: B006 - typer's way
    method: Annotated[
        str, typer.Option(callback=one_of(CAM_METHODS), help=f"One of {', '.join(CAM_METHODS)}.")
    ] = "grad_cam",
    signed: Annotated[bool, typer.Option("--signed", help="Keep what speaks against the class, too.")] = False,
    sign: Annotated[Sign, typer.Option(help="What is drawn of a signed map.")] = "both",
) -> None:
    """Which region speaks for the class: Grad-CAM and its kin."""
    name: Method = method
    visualizations = [GradCAM(layer, method=name, signed=signed) for layer in layers or (None,)]
    explain_files(images, visualizations, options, _style(drawing, sign))


@with_option_groups
def occlusion(
    images: Images,
    options: TargetOptions,
    drawing: RegionDrawing,
    patch: Annotated[int | None, typer.Option(min=1, help="The square's side, pixels; 32.", show_default=False)] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="How far it is moved; half of it.", show_default=False)
    ] = None,
    sign: Annotated[Sign, typer.Option(help="What is drawn of the map.")] = "both",
) -> None:
    """What the class's score loses where a square covers the photo."""
    explain_files(images, [Occlusion(patch, stride)], options, _style(drawing, sign))


@with_option_groups
def activations(
    images: Images,
    layers: Layers,
    options: MapOptions,
    channels: Annotated[
        str, typer.Option(help="Channels such as 0-4,17; by default all, of which five are drawn.")
    ] = "",
    reduction: Annotated[
        str, typer.Option(callback=one_of(REDUCTIONS), help=f"Of the channels; one of {', '.join(REDUCTIONS)}.")
    ] = "none",
    cmap: ColorMap = None,
) -> None:
    """What layers make of the photo, as a grid: layers as rows, channels as columns."""
    name: Method = reduction
    picked = parse_channels(channels)
    style = Style(cmap=cmap, columns=len(picked or range(DRAWN_CHANNELS)))
    explain_files(images, [Activations(layers, picked, name)], options, style)


@with_option_groups
def visualize(
    images: Images,
    options: TargetOptions,
    drawing: Drawing,
    layers: Layers = [],  # noqa: B006 - typer's way
    channels: Channels = "",
) -> None:
    """Saliency plain and guided, Grad-CAM, and the outputs of each --layer, in one pass.

    Guided saliency is left out, with the reason, where the model hides activations from it.
    """
    picked = parse_channels(channels)
    explain_files(images, lambda card: _supported(card, layers, picked), options, _style(drawing))


@with_option_groups
def report(
    images: Annotated[list[Path], typer.Argument(help="Image files, and folders of them.", show_default=False)],
    options: ReportOptions,
    drawing: Drawing,
    layers: Layers = [],  # noqa: B006 - typer's way
    channels: Channels = "",
) -> None:
    """One HTML page of many photos and their maps, by predicted class.

    Maps and flags are those of `visualize`. The page needs nothing else, on a disk or in a mail. A folder stands for
    the image files in it and below.
    """
    picked = parse_channels(channels)
    style = dataclasses.replace(_style(drawing), columns=len(picked or range(DRAWN_CHANNELS)))
    write_report(images, lambda card: _supported(card, layers, picked), options, style)


def _supported(card: ModelCard, layers: Sequence[str], channels: Sequence[int] | None) -> list[Visualization]:
    """Return the visualizations of `visualize` that the model supports."""
    visualizations: list[Visualization] = [Saliency(), GradCAM()]
    if reason := card.unavailable_methods.get("guided"):
        note(f"note: guided is left out: {reason}")
    else:
        visualizations.insert(1, Saliency("guided"))
    channel_counts = {layer.name: layer.shape[-1] for layer in card.layers}
    for layer in layers:
        first = range(min(DRAWN_CHANNELS, channel_counts.get(layer, DRAWN_CHANNELS)))
        visualizations.append(Activations(layer, channels or first))
    return visualizations
