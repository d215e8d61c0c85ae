"""The `convlens` command: pictures of photos, and a look at models and jobs. Everything goes through the SDK.

Results go to stdout, progress and errors to stderr. Other distributions add subcommands by the entry-point group
`convlens.commands`: a name, and a callable that takes the remaining arguments and returns the exit status. Where it has
a method `command()`, that returns the Typer command whose options the shell completes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from convlens import command
from convlens.client.cli import jobs, maps, models, server

PASS_ON: Final = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""What Typer makes of the arguments of another distribution's subcommand: nothing."""
SERVICE: Final = "The service"
"""The panel of --help with the commands that run Convlens, rather than call it."""
HELP: Final = {
    "up": "Run everything on this machine: Valkey, a worker, a server.",
    "server": "Run a server, which takes calls and queues jobs.",
    "worker": "Run a worker, which holds models and computes maps.",
    "web": "Serve maps over HTTP, and a page to explore them in a browser.",
    "doctor": "Say what is set up wrongly, and what to do.",
    "token": "Make tokens for a server's callers.",
}
CONNECTION: Final = ("server", "tls", "ca", "cert", "key", "connect_timeout")
"""The options before the subcommand that `web` has, too."""
ENTRIES: Final = {entry.name: entry for entry in metadata.entry_points(group="convlens.commands")}


class _Commands(TyperGroup):
    """The subcommands. One of another distribution is loaded only when it is called, or its options are completed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that the arguments name, with its options where the shell completes them."""
        name, command, rest = super().resolve_command(ctx, args)
        if ctx.resilient_parsing and name in ENTRIES and hasattr(loaded := ENTRIES[name].load(), "command"):
            command = loaded.command()
        return name, command, rest


app = typer.Typer(
    cls=_Commands,
    help="What did this VGG16 look at? Maps of photos, as pictures and arrays, from a Convlens server.",
    epilog="Exit status: 0 done; 1 failed, stderr says why; 2 wrong usage; 130 interrupted. Results go to stdout.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.callback()(server.configure)
for _command in (maps.saliency, maps.grad_cam, maps.occlusion, maps.activations, maps.visualize, maps.report):
    app.command()(_command)
app.command("models")(models.list_models)
app.add_typer(models.app, name="model")
app.command("info")(models.show_server)
app.add_typer(jobs.app, name="jobs")


def _run_entry(entry: metadata.EntryPoint, first: Sequence[str] = ()) -> Callable[[typer.Context], None]:
    """Return a subcommand of another distribution, which is loaded when it is called and parses its own arguments."""

    def run(context: typer.Context) -> None:
        connection = _connection_flags(context) if entry.name == "web" else []
        sys.exit(entry.load()([*first, *connection, *context.args]))

    return run


def _connection_flags(context: typer.Context) -> list[str]:
    """Return those of the options before the subcommand that say how to reach a server."""
    root = context.find_root()
    given = {name: root.params[name] for name in CONNECTION if _is_given(root, name)}
    return [f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in given.items()]


def _is_given(context: Any, name: str) -> bool:
    """Return True for an option of the command line, rather than of a variable or the default."""
    return getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"


for _name, _entry in sorted(ENTRIES.items(), key=lambda item: (*HELP, item[0]).index(item[0])):
    if _name == "model":
        _help = "Say how a worker would serve a model's file, or why it would refuse it."
        models.app.command("check", help=_help, context_settings=PASS_ON)(_run_entry(_entry, ["check"]))
        continue
    app.command(
        _name, help=HELP.get(_name, f"Run the {_name}."), context_settings=PASS_ON, rich_help_panel=SERVICE
    )(_run_entry(_entry))  # fmt: skip


def _explain_missing(context: typer.Context) -> None:
    typer.echo(command.explain_missing(str(context.info_name)), err=True)
    raise typer.Exit(2)


for _name in command.PARTS.keys() - ENTRIES.keys():
    app.command(_name, hidden=True, context_settings=PASS_ON)(_explain_missing)

PARTS: Final = [name for name in ("up", "server", "worker") if name in ENTRIES]
"""Subcommands with settings, which print them by --show-config."""
DEFAULT_PART: Final = "".join(PARTS[:1])
_config = typer.Typer(help="Look at the settings of servers and workers.", no_args_is_help=True)


@_config.command("show", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def show_config(
    context: typer.Context,
    part: Annotated[
        str, typer.Argument(help=f"Whose: one of {', '.join(PARTS)}.", autocompletion=lambda: PARTS)
    ] = DEFAULT_PART,
) -> None:
    """Print the settings in force, and where each comes from: a flag, a variable, the file, or the default.

    Flags of the part may follow. Passwords are not shown.
    """
    arguments = context.args
    if part.startswith("-"):  # a flag of the default part
        part, arguments = DEFAULT_PART, [part, *arguments]
    if part not in PARTS:
        raise typer.BadParameter(f"{part!r} is none; allowed: {', '.join(PARTS)}", param_hint="PART")
    sys.exit(ENTRIES[part].load()(["--show-config", *arguments]))


if PARTS:
    app.add_typer(_config, name="config", rich_help_panel=SERVICE)
