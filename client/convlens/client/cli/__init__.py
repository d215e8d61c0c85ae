"""The `convlens` command: pictures of photos, and a look at models and jobs. Everything goes through the SDK.

Results go to stdout, progress and errors to stderr. Other distributions add subcommands by the entry-point group
`convlens.commands`: a name, and a callable that takes the remaining arguments and returns the exit status.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from typing import Final

import typer

from convlens import command
from convlens.client.cli import jobs, maps, models, server

app = typer.Typer(
    help="What did this VGG16 look at? Maps of photos, as pictures and arrays, from a Convlens server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.callback()(server.configure)
for _command in (maps.saliency, maps.grad_cam, maps.occlusion, maps.activations, maps.visualize):
    app.command()(_command)
app.command("models")(models.list_models)
app.command("info")(models.show_server)
app.add_typer(jobs.app, name="jobs")

HELP: Final = {
    "up": "Run everything on this machine",
    "doctor": "Say what is set up wrongly",
    "token": "Make tokens for a server's callers",
    "model": "Check a model's file before it is served",
}


def _run_entry(entry: metadata.EntryPoint) -> Callable[[typer.Context], None]:
    """Return a subcommand of another distribution, which is loaded when it is called and parses its own arguments."""

    def run(context: typer.Context) -> None:
        sys.exit(entry.load()(context.args))

    return run


for _entry in sorted(metadata.entry_points(group="convlens.commands"), key=lambda entry: entry.name):
    app.command(
        _entry.name,
        help=f"{HELP.get(_entry.name, f'Run the {_entry.name}')}: `convlens {_entry.name} --help`.",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )(_run_entry(_entry))


def _explain_missing(context: typer.Context) -> None:
    sys.exit(command.explain_missing(str(context.info_name)))


for _name in command.PARTS.keys() - metadata.entry_points(group="convlens.commands").names:
    app.command(_name, hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
        _explain_missing
    )
