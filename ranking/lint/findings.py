"""A finding of the linter: what was found, how much of it, and what it is worth in recall."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from conf.schema import Severity

if TYPE_CHECKING:
    from ranking.lint.worth import Yardstick

METRIC: Final = "recall@10"
SERIOUS: Final = 0.1
"""A measured gain of this share of the honest recall, with an interval above 0, is serious."""
SMALL: Final = 0.01
"""A smaller gain than this share is a note."""


@dataclass(frozen=True)
class Worth:
    """Recall with and without a finding, from the same queries and the same model."""

    model: str
    """The model, and what was changed between the two runs."""
    as_is: float
    """Mean recall@10 with the data as they are."""
    without: float
    """Mean recall@10 with the finding removed."""
    low: float
    """Lower end of the interval of `as_is - without`."""
    high: float
    queries: int
    paired: bool = True
    """Whether each query has both values; False where a part of the targets is left out."""

    @property
    def inflates(self) -> Severity:
        """Return how much the finding inflates recall: within chance, a little, or by a tenth and more."""
        gain = self.as_is - self.without
        if self.low <= 0 or gain < SMALL * self.without:
            return Severity.note
        return Severity.serious if gain >= SERIOUS * self.without else Severity.warning


@dataclass(frozen=True)
class Finding:
    """One finding of one check."""

    check: str
    """Name of the check."""
    severity: Severity
    title: str
    """The finding in one phrase, with its count."""
    count: int
    total: int
    """Of how many."""
    unit: str
    """What is counted."""
    example: str
    meaning: str
    """Why it matters to an evaluation."""
    fix: str
    worth: Worth | None = None
    unmeasured: str = ""
    """Why no worth is measured, where there is none."""
    measure: Callable[[Yardstick], Worth | None] | None = field(default=None, repr=False, compare=False)
    """Measures the worth."""
    graded: bool = True
    """Whether the measured worth decides the severity, up to `most` and down to `least`."""
    least: Severity = Severity.note
    most: Severity = Severity.serious

    def measured(self, yardstick: Yardstick) -> Finding:
        """Return the finding with its worth, and the severity that follows from it."""
        worth = self.measure(yardstick) if self.measure is not None else None
        if worth is None:
            reason = self.unmeasured or "no test query is affected, or all are alike"
            severity = self.least if self.graded and self.measure is not None else self.severity
            return replace(self, unmeasured=reason, severity=severity)
        severity = self.severity
        if self.graded:
            severity = max(self.least, min(self.most, worth.inflates))
        return replace(self, worth=worth, severity=severity)

    def plain(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "check": self.check,
            "severity": self.severity.name,
            "title": self.title,
            "count": self.count,
            "total": self.total,
            "unit": self.unit,
            "example": self.example,
            "meaning": self.meaning,
            "fix": self.fix,
            "worth": None if self.worth is None else {"metric": METRIC, **asdict(self.worth)},
            "unmeasured": self.unmeasured,
        }


def worst(findings: Sequence[Finding]) -> Severity | None:
    """Return the highest severity, or None without findings."""
    return max((finding.severity for finding in findings), default=None)
