"""How a run ends: the outcome in a word, its exit code, and the exceptions by which a step ends a run."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

LOCKED: Final = 13
"""Exit code where another run holds the lock; that run goes on."""


class Outcome(Enum):
    """How a run ended."""

    published = "published"
    """A new model is served."""
    refused = "refused"
    """A check of the data or a guard is broken; the served model stays."""
    too_little = "too_little"
    """Too little new data to make a model of; the served model stays."""
    rolled_back = "rolled_back"
    """The new model broke a guard while it was watched; the earlier one is served again."""
    bad_input = "bad_input"
    """A setting or a file needs a person."""
    fault = "fault"
    """An error of the program, of the machine, or of a server that is watched."""
    abandoned = "abandoned"
    """Interrupted, and not resumed; a later run took its place."""

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return _CODES[self]


_CODES: Final = {
    Outcome.published: 0,
    Outcome.refused: 10,
    Outcome.too_little: 11,
    Outcome.rolled_back: 12,
    Outcome.bad_input: 2,
    Outcome.fault: 1,
    Outcome.abandoned: 1,
}


class EndOfRunError(Exception):
    """A step ends the run before its last step, as intended."""

    def __init__(self, outcome: Outcome, reason: str, record: dict[str, Any] | None = None) -> None:
        """Take what the audit file says.

        Args:
            outcome: how the run ends.
            reason: why, in one sentence.
            record: what the step found, as plain values.
        """
        super().__init__(reason)
        self.outcome, self.reason, self.record = outcome, reason, record or {}


class Interrupted(BaseException):
    """A signal to end; the run stays open, and the next call resumes it."""

    def __init__(self, number: int) -> None:
        """Take the signal's number."""
        super().__init__(f"signal {number}")
        self.number = number
