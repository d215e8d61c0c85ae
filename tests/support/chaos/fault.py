"""What a fault is: a row of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convlens.client import ConvlensError

if TYPE_CHECKING:
    from chaos.load import Load
    from chaos.questions import Question
    from chaos.stack import Stack


PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is done to a stack under load, and undone."""

    name: str
    act: Callable[[Stack, Load], None]
    """Does it, sees that it has hit, and ends it."""
    seen: str
    """What a caller of the SDK sees; docs/reliability.md says the same."""
    errors: tuple[type[ConvlensError], ...] = ()
    """What a caller may meet and ask again after, beyond what the SDK itself tries again."""
    patience: float = PATIENCE
    """Seconds that a call may take."""
    fails: Mapping[Question, str] = field(default_factory=dict)
    """Questions that cannot be answered under it, and the reason that their callers are told."""
