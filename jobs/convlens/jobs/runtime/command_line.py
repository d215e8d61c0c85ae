"""The command lines of server, worker and `convlens up`: every setting is a flag, shown by Typer in panels by topic."""

from __future__ import annotations

import inspect
import os
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Generic, TypeVar, Union, get_args, get_origin

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from convlens.jobs.runtime.configuration import FILE_VARIABLE, WrongConfiguration, check_variables
from convlens.jobs.runtime.settings import JobsSettings
from convlens.jobs.runtime.settings_table import format_settings

S = TypeVar("S", bound=JobsSettings)

METAVARS: Final[dict[Any, str]] = {int: "INTEGER", float: "NUMBER", Path: "PATH"}
CONFIGURATION: Final = "Configuration"
EPILOG: Final = (
    "Each setting is a flag, or a variable such as CONVLENS_LOG_LEVEL, or a line of a TOML file such as log_level. "
    "Flags come before variables, these before the file."
)


class SettingsCommand(Generic[S]):
    """A command whose flags are settings: call it with the arguments; it returns the exit status."""

    def __init__(self, name: str, settings: type[S], run: Callable[[S], int], summary: str) -> None:
        self.name = name
        self._settings = settings
        self._run = run
        self._summary = summary

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Run the command until it ends. Wrong arguments and settings end the process with status 2."""
        arguments = sys.argv[1:] if argv is None else argv
        return self._run(read_settings(self._settings, self.name, arguments, self._summary))

    def command(self) -> Any:
        """Return the command with its flags, for the shell's completion."""
        return flags_command(self._settings, self._summary, lambda _: None)


def make_group(summary: str) -> typer.Typer:
    """Make a command with subcommands, even if there is only one."""
    app = typer.Typer(
        help=summary,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(lambda: None)
    return app


def run_group(app: typer.Typer, name: str, argv: Sequence[str] | None) -> int:
    """Run a command with subcommands, by default with the process' arguments; return the exit status."""
    try:
        app(args=sys.argv[1:] if argv is None else list(argv), prog_name=name)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def read_settings(settings: type[S], program: str, argv: Sequence[str], summary: str = "") -> S:
    """Return the settings of a command line. A wrong one ends the process with status 2 and a message.

    So do --help, which begins with `summary`, and --show-config, with status 0.
    """
    return make_settings(settings, program, parse_flags(settings, program, argv, summary) if argv else {})


def make_settings(settings: type[S], program: str, flags: Mapping[str, Any]) -> S:
    """Make settings of what parse_flags() returned; ends the process as read_settings() does.

    Sets CONVLENS_CONFIG to the file of --config, for the processes that this one starts.
    """
    given = {name: value for name, value in flags.items() if name in settings.model_fields}
    if flags.get("config") is not None:
        os.environ[FILE_VARIABLE] = flags["config"]
    try:
        check_variables(os.environ)
        made = settings(**given)
        if flags.get("show_config"):
            print(format_settings(made, given))
            raise SystemExit(0)
    except WrongConfiguration as error:
        print(f"{program}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except ValidationError as error:
        for problem in error.errors():
            name = "--" + "-".join(map(str, problem["loc"])).replace("_", "-")
            text = "" if name == "--redis-url" else f" (given: {problem['input']!r})"  # it may hold a password
            print(f"{program}: {name}: {problem['msg']}{text}", file=sys.stderr)
        raise SystemExit(2) from None
    return made


def parse_flags(
    settings: type[JobsSettings], program: str, argv: Sequence[str], summary: str = "",
    extra: Sequence[inspect.Parameter] = (),
) -> dict[str, Any]:  # fmt: skip
    """Return the settings that a command line gives, and all of `extra`. --help and wrong flags end the process."""
    given: list[dict[str, Any]] = []
    command = flags_command(settings, summary, given.append, extra)
    try:
        command(args=list(argv), prog_name=program)
    except SystemExit:
        if not given:
            raise
    return given[0]


def flags_command(
    settings: type[JobsSettings],
    summary: str,
    receive: Callable[[dict[str, Any]], None],
    extra: Sequence[inspect.Parameter] = (),
) -> Any:
    """Return a Typer command that has the settings as flags and calls `receive` with those that are given."""
    names = {parameter.name for parameter in extra}

    def callback(context: typer.Context, **values: Any) -> None:
        receive({
            name: value
            for name, value in values.items()
            if name in names or getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
        })  # fmt: skip

    parameters = [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *extra,
        *_configuration_parameters(),
        *(
            _parameter(name, settings.model_fields[name], panel)
            for panel, names in settings.panels().items()
            for name in names
        ),
    ]
    callback.__dict__["__signature__"] = inspect.Signature(parameters)  # what Typer reads
    callback.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    paragraphs = (text if text.startswith(" ") else text.replace("\n", " ") for text in summary.strip().split("\n\n"))
    app.command(help="\n\n".join(paragraphs), epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})(
        callback
    )
    return typer.main.get_command(app)


def option(name: str, kind: Any, default: Any, info: Any) -> inspect.Parameter:
    """Return a parameter that Typer makes an option of."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info])


def _configuration_parameters() -> Sequence[inspect.Parameter]:
    config = typer.Option(
        "--config", metavar="FILE", rich_help_panel=CONFIGURATION, show_default=False,
        help="TOML file of settings: those of several parts, then sections such as \\[server]. Also CONVLENS_CONFIG.",
    )  # fmt: skip
    show = typer.Option(
        "--show-config", rich_help_panel=CONFIGURATION, show_default=False,
        help="Print the settings in force, and where each comes from, and exit.",
    )  # fmt: skip
    return option("config", str | None, None, config), option("show_config", bool, False, show)


def _parameter(name: str, field: FieldInfo, panel: str) -> inspect.Parameter:
    """Return a setting as a parameter. Values stay text: pydantic reads and checks them."""
    kinds = _kinds(field.annotation)
    flag = f"--{name.replace('_', '-')}"
    default = field.get_default()
    shared: dict[str, Any] = {
        "help": (field.description or "").replace("[", "\\["),
        "rich_help_panel": panel,
        "show_default": default not in (None, ""),
    }
    if bool in kinds:
        return option(name, bool, default, typer.Option(f"{flag}/--no-{flag.removeprefix('--')}", **shared))
    if list in kinds:
        return option(name, list[str], default, typer.Option(flag, metavar="TEXT", **shared))
    metavar = next((METAVARS[kind] for kind in kinds if kind in METAVARS), "TEXT")
    text = None if default is None else f"{default:g}" if isinstance(default, float) else str(default)
    return option(name, str | None, text, typer.Option(flag, metavar=metavar, **shared))


def _kinds(annotation: Any) -> list[Any]:
    """Return the types that an annotation allows, without the arguments of lists."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [kind for part in get_args(annotation) for kind in _kinds(part)]
    return [list] if origin is list else [annotation]
