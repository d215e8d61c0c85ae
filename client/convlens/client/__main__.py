"""The `convlens` command, or what to install for it."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line."""
    try:
        from convlens.client.cli import app
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.exit("the convlens command needs its extra packages: pip install 'convlens-client[cli]'")
    app()


if __name__ == "__main__":
    main()
