"""The tables of settings as Markdown, from the settings of `convlens server`, `worker` and `up`, by topic of --help."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from convlens.jobs.runtime.settings import JobsSettings
from convlens.local.settings import UpSettings
from convlens.server.settings import ServerSettings
from convlens.worker.settings import WorkerSettings

PARTS: Final[dict[str, type[JobsSettings]]] = {"server": ServerSettings, "worker": WorkerSettings, "up": UpSettings}


def render() -> str:
    """Return a section with a table for each topic."""
    panels = UpSettings.panels()
    return "\n".join(line for topic, names in panels.items() for line in _render_topic(topic, names))


def _render_topic(topic: str, names: list[str]) -> Iterator[str]:
    yield f"\n### {topic}\n\n| flag, variable | default | meaning | of |\n| --- | --- | --- | --- |"
    for name in names:
        parts = {part: settings for part, settings in PARTS.items() if name in settings.model_fields}
        defaults = {part: _show_default(settings.model_fields[name].get_default()) for part, settings in parts.items()}
        shown = ", ".join(f"{part}: {default}" for part, default in defaults.items())
        if len(set(defaults.values())) == 1:
            shown = defaults["up"]
        meaning = (UpSettings.model_fields[name].description or "").replace("|", "\\|").replace("[", "\\[")
        flag_and_variable = f"`--{name.replace('_', '-')}`<br>`CONVLENS_{name.upper()}`"
        yield f"| {flag_and_variable} | {shown} | {meaning} | {', '.join(parts)} |"


def _show_default(value: Any) -> str:
    if value is None or value in ("", []):
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " ".join(f"`{item}`" for item in value)
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
