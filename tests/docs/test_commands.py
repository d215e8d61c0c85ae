"""Every command in the documentation exists with the flags that it is shown with."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest
from command_reference import walk
from markdown_blocks import PAGES, ROOT, find_commands

TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands_that_begin(*beginning):
    """Return the documentation's commands that begin so, each as a parameter without this beginning."""
    return [
        pytest.param(arguments[len(beginning) :], id=f"{page.relative_to(ROOT)}: {' '.join(arguments)}")
        for page in PAGES
        for arguments in find_commands(page)
        if arguments[: len(beginning)] == [*beginning]
    ]


@pytest.fixture(scope="module")
def known():
    """The Typer commands by their full names."""
    return dict(walk())


def test_commands_of_the_documentation_are_seen():
    assert len(commands_that_begin("convlens")) > 40
    assert commands_that_begin("make")


@pytest.mark.parametrize("arguments", commands_that_begin("convlens"))
def test_a_command_of_convlens_is_understood(arguments, known):
    name = "convlens"
    while True:
        command = known[name]
        context = command.context_class(command, info_name=name, **command.context_settings)
        if not hasattr(command, "commands"):
            command.parse_args(context, list(arguments))  # raises UsageError
            return
        _, arguments, _ = command.make_parser(context).parse_args(args=list(arguments))
        if not arguments:  # `convlens --help`
            return
        name, *arguments = f"{name} {arguments[0]}", *arguments[1:]


@pytest.mark.parametrize("arguments", commands_that_begin("make"))
def test_a_target_of_make_exists(arguments):
    assert {argument for argument in arguments if "=" not in argument} <= TARGETS | {"fuzz-images"}


@pytest.mark.parametrize("arguments", commands_that_begin("python", "-m"))
def test_a_module_that_is_run_exists(arguments):
    assert find_spec(arguments[0])
