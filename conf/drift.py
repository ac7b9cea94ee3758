"""Limits of the checks that compare a night's data and models with those of the last accepted run."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Final

from conf.checks import at_least, require
from conf.errors import InputError, closest

CHECKS: Final = (
    "rejects", "repeats", "earlier_days", "events_lost", "gap", "future", "volume_low", "volume_high",
    "hours", "kinds", "kinds_missing", "new_users", "top_user", "value", "quantity", "unit_value",
    "items_lost", "items_new", "texts_empty", "texts_changed", "texts_length", "texts_encoding",
    "price_unit", "attributes", "psi", "features_dead", "features", "scores",
)  # fmt: skip
"""Every check; those of a column or feature have its name after a dot (`psi.price`)."""
LIMIT: Final = {"limit": True}
"""Marks a setting that is the limit of a check."""


def _limit(default: float) -> float:
    return field(default=default, metadata=LIMIT)


@dataclass(frozen=True)
class ChecksConfig:
    """What is still normal: a check refuses the run beyond its limit, and warns beyond `warn_at` of it.

    The limits are sizes of effects, not levels of significance: with many events the smallest difference is
    significant.
    """

    warn_only: list[str] = field(default_factory=list)
    """Names of checks that only warn, e.g. for the night after a relaunch: `[texts_changed]`."""
    warn_at: float = 0.5
    """Share of a limit beyond which its check warns."""
    min_events: int = 50
    """Fewest events from which shares are judged."""
    weeks: int = 8
    """Weeks before the new events with which their weekdays are compared."""
    rejects: float = _limit(0.2)
    """Share of the new rows that are rejected, of events and of items."""
    repeats: float = _limit(0.2)
    """Share of the new events that repeat another one in user, item, kind and time."""
    earlier_days: float = _limit(0.5)
    """Growth of a day that an accepted run has seen already, as a share of its events."""
    events_lost: float = _limit(0.1)
    """Share of the events of the last accepted run that are gone."""
    gap_days: float = _limit(21.0)
    """Days without any event before the first new one; where the shop has had a longer gap, that one."""
    future: float = _limit(0.01)
    """Share of the new events that lie in the future, by more than a day."""
    volume_low: float = _limit(10.0)
    """How many times fewer events a day has than the same weekday usually has (median)."""
    volume_high: float = _limit(20.0)
    """How many times more events a day has than the same weekday usually has (median). A day of sales has
    several times more."""
    hours: float = _limit(0.25)
    """Share of a day's usual events that belong to hours which always had events and have none now."""
    kinds: float = _limit(0.3)
    """Total variation distance between the kinds of the new events and those of the weeks before."""
    new_users: float = _limit(0.25)
    """Share of users without earlier events, above the largest of the days before."""
    top_user: float = _limit(0.6)
    """Share of the new events that are of one user; where it was larger before, that one."""
    numbers: float = _limit(2.0)
    """Factor between the median of the new events and that of the nearest of the days before: of value,
    quantity and value per unit."""
    items_lost: float = _limit(0.2)
    """Share of the items of the last accepted run that are gone."""
    items_new: float = _limit(1.0)
    """New items as a share of those of the last accepted run."""
    texts_empty: float = _limit(0.1)
    """Growth of the share of items whose text is empty or shorter than three characters."""
    texts_changed: float = _limit(0.5)
    """Share of the items whose text has changed."""
    texts_length: float = _limit(3.0)
    """Factor between the mean lengths of the texts."""
    texts_encoding: float = _limit(0.05)
    """Growth of the share of texts that look wrongly decoded."""
    price_unit: float = _limit(2.0)
    """Factor by which the price of the median item has changed."""
    attributes: float = _limit(0.2)
    """Growth of the share of items without a value of an attribute."""
    psi: float = _limit(0.25)
    """Population stability index of numbers and categories of the items. Features of the ranking head and
    scores only warn beyond it."""

    def __post_init__(self) -> None:
        """Check ranges and names."""
        require(0 < self.warn_at <= 1, "checks.warn_at must lie in 0..1, 0 excluded")
        at_least(1, self, "checks.", "min_events", "weeks")
        for name in self.warn_only:
            if name not in CHECKS:
                known = ", ".join(CHECKS)
                raise InputError(
                    f"checks.warn_only: no check '{name}'{closest(name, CHECKS)}; checks are {known}"
                )
        for name in limit_names():
            require(getattr(self, name) > 0, f"checks.{name} must be positive")
        for name in ("volume_low", "volume_high", "numbers", "price_unit", "texts_length"):
            require(getattr(self, name) > 1, f"checks.{name} is a factor and must be above 1")


def limit_names() -> list[str]:
    """Return the names of the settings that are limits."""
    return [setting.name for setting in fields(ChecksConfig) if setting.metadata.get("limit")]
