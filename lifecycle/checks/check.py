"""The outcome of a check, and how a value becomes one."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from conf.composition.overrides import override
from conf.drift import ChecksConfig


class Outcome(StrEnum):
    """What follows from a check."""

    passed = "passed"
    warned = "warned"
    refused = "refused"
    not_judged = "not_judged"
    """There is too little to compare."""


@dataclass(frozen=True)
class Check:
    """One judged value."""

    name: str
    value: float | None
    limit: float | None
    """The run is refused beyond it."""
    outcome: Outcome
    line: str
    """What was found, in words; of a warning or a refusal also what is normal, examples, and what to do."""
    normal: str | None = None
    """What the value is in other runs or days, if known."""

    def record(self) -> dict[str, Any]:
        """Return the check as JSON values."""
        return {**asdict(self), "outcome": str(self.outcome)}


@dataclass(frozen=True)
class Finding:
    """A value and its explanation, before it is judged."""

    name: str
    value: float
    limit: float
    found: str
    """What the value is, in words."""
    normal: str | None = None
    examples: str = ""
    fix: str = ""
    """What to do if it is a fault."""
    is_factor: bool = False
    """Whether the value is a factor, 1 at best and compared by its logarithm, either way."""
    warn_above: float | None = None
    """Value above which the check warns, instead of a share of the limit."""
    only_warns: bool = False
    """Whether no value refuses the run."""


def not_judged(name: str, why: str) -> Check:
    """Return a check without a verdict."""
    return Check(name, None, None, Outcome.not_judged, why)


def judged(finding: Finding, limits: ChecksConfig) -> Check:
    """Judge a value: above its limit it refuses the run, above `warn_at` of it it warns."""
    value, limit = finding.value, finding.limit
    if finding.is_factor:
        value, limit = (abs(math.log(value)) if value > 0 else math.inf), math.log(limit)
    excused = finding.only_warns or finding.name.partition(".")[0] in limits.warn_only
    outcome = Outcome.passed
    warn_above = limits.warn_at * limit if finding.warn_above is None else finding.warn_above
    if value > warn_above:
        outcome = Outcome.refused if value > limit and not excused else Outcome.warned
    line = finding.found
    if finding.normal:
        line += f"; normal is {finding.normal}"
    if outcome is not Outcome.passed:
        line += f" (e.g. {finding.examples})" if finding.examples else ""
        line += f". {finding.fix}" if finding.fix else ""
        line += "" if line.endswith("?") else "."
    if outcome is Outcome.refused:
        allow = override("checks.warn_only", [finding.name.partition(".")[0]])
        line += f" If it is right as it is, {allow} lets this run pass"
    return Check(finding.name, finding.value, finding.limit, outcome, line, finding.normal)
