"""`convlens models` and `convlens info`."""

from __future__ import annotations

from dataclasses import asdict

from convlens.client.cli.server import connected
from convlens.client.cli.terminal import out, row, table

_DURATIONS = ("max_timeout", "default_timeout", "result_ttl", "tenant_burst")


def list_models() -> None:
    """The models served, what their input means, and those that workers refused to serve."""
    served = table("name", "source", "input", "preprocess", "classes", "layers", "Grad-CAM at", "precision", "weights",
        "workers")  # fmt: skip
    refused = table("refused", "source", "why")
    with connected() as client:
        for card in client.models():
            size = "×".join(map(str, card.input_shape))
            source = f"{card.source} (synthetic)" if card.synthetic and card.source != "null" else card.source
            preprocess = f"{card.preprocess} (assumed)" if card.preprocess_assumed else card.preprocess
            classes, layers = card.classes or card.layers[-1].shape[-1], len(card.layers)
            row(served, card.name, source, size, preprocess, classes, layers, card.cam_layer, card.precision,
                card.digest[:8], card.workers)  # fmt: skip
        for model in client.refused_models():
            row(refused, model.name, model.source, model.reason)
    out.print(served)
    if refused.row_count:
        out.print(refused)


def show_server() -> None:
    """The server's version and limits."""
    with connected() as client:
        info = client.server_info()
    facts = table("what", "value")
    row(facts, "version", info.version)
    row(facts, "default model", info.default_model or "none")
    for name, value in asdict(info.limits).items():
        if value:
            row(facts, name.replace("_", " "), f"{value:g} s" if name in _DURATIONS else f"{value:,}")
    out.print(facts)
