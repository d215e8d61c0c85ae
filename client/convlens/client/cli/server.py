"""The options before the subcommand: which server, and how to reach it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from convlens.client import TLS, Client, ConvlensError
from convlens.client.cli.parsing import check_seconds
from convlens.client.cli.progress_notes import notes_while_waiting
from convlens.client.cli.terminal import err, line, note, out
from convlens.client.connection import VERSION
from convlens.client.timeouts import DEFAULT_CONNECT_TIMEOUT, DEFAULT_TIMEOUT

INTERRUPTED: Final = 130
"""The exit status after Ctrl-C, as shells have it."""


@dataclass(slots=True)
class Server:
    """The server that this process's command talks to."""

    target: str = "localhost:50051"
    token: str | None = None
    tls: TLS | None = None
    timeout: float = DEFAULT_TIMEOUT
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT


_server = Server()


def configure(
    server: Annotated[
        str, typer.Option("--server", envvar="CONVLENS_SERVER", help="HOST:PORT of the server.")
    ] = "localhost:50051",
    token: Annotated[
        str | None, typer.Option(envvar="CONVLENS_TOKEN", help="Your token; the variable is not seen in `ps`.")
    ] = None,
    tls: Annotated[
        bool, typer.Option("--tls", envvar="CONVLENS_TLS", help="TLS, trusting the system's authorities.")
    ] = False,
    ca: Annotated[
        Path | None, typer.Option(envvar="CONVLENS_CA", help="PEM file of whom to trust instead; turns TLS on.")
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(envvar="CONVLENS_CERT", help="PEM file of your own certificate, for mTLS.")
    ] = None,
    key: Annotated[Path | None, typer.Option(envvar="CONVLENS_KEY", help="PEM file of its key.")] = None,
    timeout: Annotated[
        float,
        typer.Option(
            callback=check_seconds("timeout"),
            help="Seconds each image may take, queueing included; inf: no limit.",
        ),
    ] = DEFAULT_TIMEOUT,
    connect_timeout: Annotated[
        float,
        typer.Option(
            envvar="CONVLENS_CONNECT_TIMEOUT",
            callback=check_seconds("connect_timeout"),
            help="Seconds after which a server that was never reached is given up.",
        ),
    ] = DEFAULT_CONNECT_TIMEOUT,
    _version: Annotated[
        bool, typer.Option("--version", callback=lambda shown: _print_version() if shown else None, is_eager=True,
        help="Say the version.")
    ] = False,
) -> None:  # fmt: skip
    """Set the server for the subcommand."""
    _server.target, _server.token, _server.timeout, _server.connect_timeout = server, token, timeout, connect_timeout
    _server.tls = TLS(ca, cert, key) if tls or ca or cert or key else None


def _print_version() -> None:
    out.print(f"convlens {VERSION}")
    raise typer.Exit


@contextmanager
def connected() -> Iterator[Client]:
    """Give a client of the server. An error of the service ends the command with status 1, Ctrl-C with 130.

    While the server does not answer, stderr says so.
    """
    try:
        with (
            Client(
                _server.target, token=_server.token, tls=_server.tls, timeout=_server.timeout,
                connect_timeout=_server.connect_timeout,
            ) as client,
            notes_while_waiting(client, note),
        ):  # fmt: skip
            yield client
    except (ConvlensError, OSError) as error:
        line(err, error, "error:")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        err.print("interrupted")
        raise typer.Exit(INTERRUPTED) from None
