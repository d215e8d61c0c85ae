"""The client's command line, of `convlens` and of `python -m convlens.client`."""

from __future__ import annotations

import errno
import os
import sys


def main() -> None:
    """Run the command line."""
    try:
        from convlens.client.cli import app
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.exit('the command line is not installed here: pip install "convlens-client[cli]"')
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    try:
        app()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # takes what is left in the buffer as Python ends
        sys.exit(f"error: cannot write the output: {error.strerror}")


if __name__ == "__main__":
    main()
