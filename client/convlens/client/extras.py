"""Optional dependencies: an error that names the command to install them, instead of Python's own ImportError."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final, Literal

from convlens.client.errors import MissingExtra

Extra = Literal["figures", "keras-vis", "progress"]
PACKAGES: Final[dict[Extra, dict[str, str]]] = {
    "figures": {"matplotlib": "matplotlib", "PIL": "Pillow"},
    "keras-vis": {"scipy": "SciPy"},
    "progress": {"tqdm": "tqdm"},
}
"""Of each extra: modules, and the packages that they are part of."""


def is_installed(extra: Extra) -> bool:
    """Return True if every package of the extra is installed; nothing is imported."""
    return not _missing(extra)


def require_extra(extra: Extra, feature: str) -> None:
    """Raise MissingExtra, which names `feature` and the command, unless the packages of the extra are installed."""
    if missing := _missing(extra):
        message = f'{feature} needs {" and ".join(missing)}: pip install "convlens-client[{extra}]"'
        raise MissingExtra(message, name=extra)


def _missing(extra: Extra) -> list[str]:
    return [package for module, package in PACKAGES[extra].items() if find_spec(module) is None]
