"""Checks of a deployment: what a check is, how a table of checks is run, and how the findings are logged."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from convlens.jobs.runtime.redis_client import RedisUnavailable

log = logging.getLogger(__name__)

S = TypeVar("S")


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It could not be checked: not permitted, or not reachable from here."""
    WARNING = "warning"
    """It works now, but not for long, or not under load."""
    ERROR = "error"
    """A promise does not hold, or nothing works."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check reports to people: the fact with its numbers, and the remedy where it is a problem."""

    check: str
    level: Level
    message: str

    @property
    def is_problem(self) -> bool:
        """Whether an operator should act."""
        return self.level in {Level.WARNING, Level.ERROR}


Check = Callable[[S], Iterable[tuple[Level, str]]]
"""Yields a level and a message for each thing that it checks; nothing where it does not apply."""


def run_checks(table: Mapping[str, Check[S]], subject: S) -> Iterator[Finding]:
    """Yield the findings of all checks of a table; one that cannot be run is UNKNOWN."""
    for name, check in table.items():
        try:
            for level, message in check(subject):
                yield Finding(name, level, message)
        except (RedisUnavailable, OSError) as error:
            yield Finding(name, Level.UNKNOWN, f"cannot be checked: {error}")


def log_problems(table: Mapping[str, Check[S]], subject: S) -> None:
    """Run a table of checks once in a background thread, and log the problems."""

    def run() -> None:
        for finding in run_checks(table, subject):
            if finding.is_problem:
                level = logging.ERROR if finding.level is Level.ERROR else logging.WARNING
                log.log(level, "check=%s %s", finding.check, finding.message)

    threading.Thread(target=run, name="checks", daemon=True).start()
