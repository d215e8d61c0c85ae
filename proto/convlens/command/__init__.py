"""The `convlens` command: runs the subcommands of the installed distributions, or says what to install for one.

convlens-proto owns the script because all others depend on it: where two distributions own one file, pip removes it
with either of them. A distribution adds subcommands by the entry-point group `convlens.commands`: a name, and a
callable that takes the remaining arguments and returns the exit status. The command line of convlens-client[cli],
registered in `convlens.command_line`, has subcommands of its own and runs those of the others as well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from typing import Final

CLIENT: Final = "convlens-client[cli]"
PARTS: Final = {
    "server": "convlens-server",
    "doctor": "convlens-server",
    "token": "convlens-server",
    "worker": "convlens-worker",
    "model": "convlens-worker",
    "web": "convlens-web",
    "up": "convlens",
}
"""The distributions of the subcommands outside the client."""
_CLIENT_NEEDS: Final = ("typer", "rich")


def main() -> int:
    """Run the command line and return its exit status."""
    commands = metadata.entry_points(group="convlens.commands")
    is_service = not (commands.names - {"model"}).isdisjoint(sys.argv[1:])
    # Read when gRPC is imported. A service's log has its errors; the messages of other commands say what it would log.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR" if is_service else "NONE")
    if command_line := _client_command_line():
        command_line()
        return 0
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in commands.names:
        status: int = commands[name].load()(arguments)
        return status
    if name in {"-h", "--help"}:
        print(_help(commands.names))
        return 0
    if name == "--version":
        print(f"convlens {metadata.version('convlens-proto')}")
        return 0
    print(explain_missing(name), file=sys.stderr)
    return 2


def explain_missing(name: str) -> str:
    """Return one sentence that says what to install for a subcommand that is not there."""
    return f"`convlens {name}` is not installed here: pip install {_quote(PARTS.get(name, CLIENT))}"


def _client_command_line() -> Callable[[], None] | None:
    """Return the client's command line; None where it or a package that it needs is not installed."""
    if not all(map(find_spec, _CLIENT_NEEDS)):
        return None
    return next((entry.load() for entry in metadata.entry_points(group="convlens.command_line")), None)


def _help(names: set[str]) -> str:
    here = [f"  convlens {name} --help" for name in sorted(names)]
    absent: dict[str, list[str]] = {}
    for name, part in PARTS.items():
        if name not in names:
            absent.setdefault(part, []).append(name)
    absent[CLIENT] = ["saliency, grad-cam, visualize, models, jobs and more"]
    installable = [f"  pip install {_quote(part):24} {', '.join(names)}" for part, names in absent.items()]
    installed = ["", "installed:", *here] if here else []
    return "\n".join(["usage: convlens COMMAND …", *installed, "", "to be installed:", *installable])


def _quote(part: str) -> str:
    return f'"{part}"' if "[" in part else part  # a shell expands brackets
