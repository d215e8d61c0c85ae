"""The client's command line, of `convlens` and of `python -m convlens.client`."""

from __future__ import annotations

import errno
import os
import sys
from importlib import metadata


def main() -> None:
    """Run the command line."""
    others = metadata.entry_points(group="convlens.commands").names - {"model"}
    is_own = not others & set(sys.argv[1:])
    os.environ.setdefault("GRPC_VERBOSITY", "NONE" if is_own else "ERROR")  # the messages of errors say what it logs
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
