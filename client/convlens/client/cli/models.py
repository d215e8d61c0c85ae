"""`convlens models`, `convlens model show` and `convlens info`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Final

import typer

from convlens.client.cli.as_json import Json, print_json
from convlens.client.cli.server import connected
from convlens.client.cli.terminal import note, out, row, table
from convlens.client.model_card import ModelCard

_DURATIONS = ("max_timeout", "default_timeout", "result_ttl", "tenant_burst")
SHOWN_LABELS: Final = 20

app: Final = typer.Typer(help="Look at one model.", no_args_is_help=True)


def list_models(as_json: Json = False) -> None:
    """List the models served, and those that workers refused to serve.

    `convlens model show NAME` has a model's layers, labels and methods. JSON: `models`, `refused`.
    """
    with connected() as client:
        cards, refused_models = client.models(), client.refused_models()
    if as_json:
        print_json({"models": cards, "refused": refused_models})
        return
    if not cards:
        note("no worker serves a model: start one by convlens up, or by convlens worker --model NAME=SOURCE")
    served = table("name", "input", "preprocess", "classes", "labels", "layers", "precision")
    for card in cards:
        row(served, card.name, _joined(card.input_shape), _preprocess(card), _classes(card),
            "yes" if card.labels else "none", len(card.layers), card.precision)  # fmt: skip
    if cards:
        out.print(served)
    if refused_models:
        refused = table("refused", "source", "why")
        for model in refused_models:
            row(refused, model.name, model.source, model.reason)
        out.print(refused)


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(help="The model's name.", show_default=False)], as_json: Json = False
) -> None:
    """Everything about a model: input, labels, layers, methods.

    JSON: the fields of the SDK's ModelCard.
    """
    with connected() as client:
        card = client.model(name)
    if as_json:
        print_json(card)
        return
    facts = table("what", "value")
    for what, value in card_facts(card).items():
        row(facts, what, value)
    out.print(facts)
    layers = table("layer", "kind", "output", "gradient")
    for layer in card.layers:
        row(layers, layer.name, layer.kind, _joined(layer.shape), "TensorFlow's" if layer.taped else "written rule")
    out.print(layers)


def card_facts(card: ModelCard) -> dict[str, object]:
    """Return what is known of a model, without its layers, by the names that people read."""
    labels = ", ".join(card.labels[:SHOWN_LABELS])
    more = len(card.labels) - SHOWN_LABELS
    facts = {
        "name": card.name,
        "source": f"{card.source} (synthetic)" if card.synthetic and card.source != "null" else card.source,
        "weights": card.digest[:16],
        "input": _joined(card.input_shape),
        "preprocess": f"{_preprocess(card)} {card.preprocess_reason}".strip(),
        "mean, std": f"{_joined(card.preprocess_mean, ':')}, {_joined(card.preprocess_std, ':')}".strip(", "),
        "precision": card.precision,
        "classes": _classes(card),
        "labels": f"{labels}, and {more} more (--json)" if more > 0 else labels or "none",
        "scores": f"{card.score_layer}, {'with' if card.has_probability else 'without'} probabilities",
        "Grad-CAM at": card.cam_layer,
        "methods": ", ".join(method for method in card.methods if method not in card.unavailable_methods),
        **{f"not {method}": reason for method, reason in sorted(card.unavailable_methods.items())},
        "largest batch": card.max_batch_size,
        "workers": f"{card.workers}, version {card.worker_version}",
    }
    return {name: value for name, value in facts.items() if value}


def show_server(as_json: Json = False) -> None:
    """The server's version and limits.

    JSON: the fields of the SDK's ServerInfo.
    """
    with connected() as client:
        info = client.server_info()
    if as_json:
        print_json(info)
        return
    facts = table("what", "value")
    row(facts, "version", info.version)
    row(facts, "default model", info.default_model or "none")
    for name, value in asdict(info.limits).items():
        if value:
            row(facts, name.replace("_", " "), f"{value:g} s" if name in _DURATIONS else f"{value:,}")
    out.print(facts)


def _preprocess(card: ModelCard) -> str:
    return f"{card.preprocess} (assumed)" if card.preprocess_assumed else card.preprocess


def _classes(card: ModelCard) -> int:
    return card.classes or (card.layers[-1].shape[-1] if card.layers else 0)


def _joined(numbers: Sequence[float], separator: str = "×") -> str:
    return separator.join(f"{number:g}" for number in numbers)
