"""A fault: one row of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convlens.client import ConvlensError

if TYPE_CHECKING:
    from chaos.cases import Case
    from chaos.load import Load
    from chaos.stack import Stack


CALL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is done to a stack under load and undone."""

    name: str
    inject: Callable[[Stack, Load], None]
    """Injects the fault, checks that it took effect, and ends it."""
    effect: str
    """What a caller of the SDK sees; docs/reliability.md has the same text."""
    errors: tuple[type[ConvlensError], ...] = ()
    """Errors after which a caller repeats its call, beyond those that the SDK retries itself."""
    call_seconds: float = CALL_SECONDS
    """Timeout of each call in seconds."""
    failing: Mapping[Case, str] = field(default_factory=dict)
    """Cases whose jobs must fail under the fault, and the reason in the error."""
