"""Checks of how a service is set up: what a check is, how a table of them is run, and how its findings are logged."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from convlens.jobs.runtime.redis_client import LedgerUnavailable

log = logging.getLogger(__name__)

S = TypeVar("S")


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It could not be checked: not permitted, or not to be had from here."""
    WARNING = "warning"
    """It works now, and will not for ever, or not under load."""
    ERROR = "error"
    """A promise does not hold, or nothing works."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, for people: the fact with its numbers, and the remedy where it is a problem."""

    check: str
    level: Level
    message: str

    @property
    def is_problem(self) -> bool:
        """Whether somebody should do something."""
        return self.level in {Level.WARNING, Level.ERROR}


Check = Callable[[S], Iterable[tuple[Level, str]]]
"""Gives a level and a message for each thing that it looks at; nothing where it does not apply."""


def examine(table: Mapping[str, Check[S]], subject: S) -> Iterator[Finding]:
    """The findings of each check of a table, by its name."""
    for name, check in table.items():
        try:
            for level, message in check(subject):
                yield Finding(name, level, message)
        except (LedgerUnavailable, OSError) as error:
            yield Finding(name, Level.UNKNOWN, f"cannot be checked: {error}")


def log_in_background(table: Mapping[str, Check[S]], subject: S) -> None:
    """Logs the problems that a table of checks finds, once, from a thread that nobody waits for."""

    def run() -> None:
        for finding in examine(table, subject):
            if finding.is_problem:
                level = logging.ERROR if finding.level is Level.ERROR else logging.WARNING
                log.log(level, "check=%s %s", finding.check, finding.message)

    threading.Thread(target=run, name="checks", daemon=True).start()
