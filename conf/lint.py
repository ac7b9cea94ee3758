"""Typed configuration of lint-data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from conf.checks import at_least
from conf.schema import PipelineConfig


class Severity(IntEnum):
    """How much a finding says against an evaluation, ascending."""

    note = 0
    """A property of the data to state beside a result."""
    warning = 1
    """It may inflate or distort results; look at it."""
    serious = 2
    """Results on these data are not what they seem."""


class FailOn(Enum):
    """Findings that end lint-data with exit code 3."""

    serious = "serious"
    warning = "warning"
    never = "never"


@dataclass(frozen=True)
class LintConfig(PipelineConfig):
    """Root of lint-data: the settings of run, and these."""

    fail_on: FailOn = FailOn.serious
    """Least severity of a finding that ends the command with exit code 3; `never` always exits with 0."""
    lint_queries: int = 4000
    """Test queries, drawn with the seed, on which the worth of findings is measured; 0 takes all."""
    measure: bool = True
    """Whether the worth of findings is measured in recall."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        at_least(0, self, "", "lint_queries")
