"""The reference of the command line as Markdown, from the commands' own help."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final
from unittest.mock import patch

from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from convlens.client import cli
from convlens.local.settings import UpSettings

INTRODUCTION: Final = """# Commands

What `convlens --help` and the help of each command say. What is printed, exit statuses and `--json` are in
[The command line](client.md#the-command-line), the settings of `server`, `worker`, `up` and `doctor`, each of which is
a flag, in [Settings](settings.md).
"""
PROGRAM: Final = "convlens"
SETTINGS: Final = frozenset(UpSettings.model_fields)
"""Options of `server`, `worker`, `up` and `doctor` that have a page of their own."""


def render() -> str:
    """Return the page: a section per command."""
    return "\n".join([INTRODUCTION, *(line for name, command in walk() for line in _render_command(name, command))])


def walk() -> Iterator[tuple[str, Any]]:
    """Yield each visible command's full name, such as `convlens jobs list`, and its Typer command."""
    yield from _walk(PROGRAM, get_command(cli.app))


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for child, subcommand in getattr(command, "commands", {}).items():
        if subcommand.hidden:
            continue
        full_name = f"{name} {child}"
        if full_name == f"{PROGRAM} model check":
            yield full_name, record_command(cli.ENTRIES["model"].load()).commands[child]
        elif child in cli.ENTRIES and not hasattr(subcommand, "commands"):
            yield from _walk(full_name, record_command(cli.ENTRIES[child].load()))
        else:
            yield from _walk(full_name, subcommand)


def record_command(run: Callable[[list[str]], object]) -> Any:
    """Return the Typer command that another distribution's subcommand parses its arguments with."""
    commands: list[Any] = []

    def record(command: Any, *_: object, **__: object) -> None:
        commands.append(command)
        raise SystemExit(0)

    with patch.object(TyperCommand, "main", record), patch.object(TyperGroup, "main", record), suppress(SystemExit):
        run(["--help"])
    return commands[0]


def _render_command(name: str, command: Any) -> Iterator[str]:
    level = "##" if name.count(" ") < 2 else "###"
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [parameter for parameter in shown if parameter.param_type_name == "argument"]
    options = [parameter for parameter in shown if parameter.param_type_name == "option"]
    has_settings = any(option.name == "show_config" for option in options)
    own = [option for option in options if not (has_settings and option.name in SETTINGS)]
    usage = " ".join([name, *map(_show_argument, arguments), *(["[OPTIONS]"] if options else [])])
    if hasattr(command, "commands"):
        usage += " COMMAND"
    yield f"\n{level} {name}\n\n{_render_help(command.help or '')}\n\n```text\n{usage}\n```\n"
    if arguments or own:
        yield "| argument or option | default | meaning |\n| --- | --- | --- |"
        yield from (f"| `{_show_argument(argument)}` | | {_escape(argument.help or '')} |" for argument in arguments)
        yield from (
            f"| {_show_flags(option)} | {_show_default(option)} | {_escape(option.help or '')} |" for option in own
        )
        yield ""
    if has_settings:
        yield f"And the [settings](settings.md) of `{name.split()[1].replace('doctor', 'server')}`.\n"


def _show_argument(argument: Any) -> str:
    name: str = argument.metavar or argument.name.upper()
    return name + ("…" if argument.nargs == -1 else "")


def _show_flags(option: Any) -> str:
    flags = ", ".join(f"`{flag}`" for flag in [*option.opts, *option.secondary_opts])
    variable = f" `{option.envvar}`" if isinstance(option.envvar, str) else ""
    return flags + variable


def _show_default(option: Any) -> str:
    if option.default in (None, "", [], False, ()) or not option.show_default or callable(option.default):
        return ""
    return "yes" if option.default is True else f"`{option.default}`"


def _render_help(text: str) -> str:
    """Return help as Markdown: what it indents is code."""
    paragraphs = []
    for paragraph in re.sub(r"\\\[", "[", text).strip().split("\n\n"):
        lines = paragraph.splitlines()
        code = [line.strip() for line in lines if line.startswith("  ")]
        prose = _escape(" ".join(line for line in lines if not line.startswith("  ")))
        paragraphs.append("\n\n".join(filter(None, [prose, "```sh\n" + "\n".join(code) + "\n```" if code else ""])))
    return "\n\n".join(paragraphs).replace("```\n\n```sh\n", "")


def _escape(text: str) -> str:
    """Return one line of help as Markdown text: what looks like markup is meant literally."""
    literal = re.sub(r"\\\[", "[", " ".join(text.split()))
    return "".join(
        part if part.startswith("`") else re.sub(r"([*_<\[\]|])", r"\\\1", part)
        for part in re.split(r"(`[^`]*`)", literal)
    )
