"""What the checks of one night compare: the new events, those before them, and the last accepted run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

import polars as pl

from conf.drift import ChecksConfig
from features.data import schema
from lifecycle.checks.profile import Profile, profile_of
from lifecycle.checks.tables import DAY, Tables

DAY_SECONDS: Final = 86_400


@dataclass(frozen=True)
class Night:
    """A dataset, and what it is compared with."""

    tables: Tables
    previous: Profile | None
    """Data of the last accepted run; None for the first."""
    limits: ChecksConfig
    now: float
    """Unix seconds."""

    @property
    def since(self) -> int:
        """Unix seconds after which events are new: the newest of the last run, else the last midnight."""
        if self.previous is not None:
            return self.previous.newest
        return self.tables.newest(self.now) // DAY_SECONDS * DAY_SECONDS - 1

    @cached_property
    def profile(self) -> Profile:
        """Summary of this night's data."""
        return profile_of(self.tables, now=self.now)

    @cached_property
    def new(self) -> pl.DataFrame:
        """Events after the newest one of the last run."""
        return self.tables.events.filter(pl.col(schema.TIMESTAMP) > self.since)

    @cached_property
    def before(self) -> pl.DataFrame:
        """All other events."""
        return self.tables.events.filter(pl.col(schema.TIMESTAMP) <= self.since)

    @cached_property
    def seen_days(self) -> dict[str, int]:
        """Day -> its events among those before."""
        return dict(self.before.group_by(DAY).len().iter_rows())

    @cached_property
    def recent(self) -> pl.DataFrame:
        """The events of the weeks before the new ones."""
        oldest = self.since - 7 * self.limits.weeks * DAY_SECONDS
        return self.before.filter(pl.col(schema.TIMESTAMP) > oldest)

    @cached_property
    def usual(self) -> pl.DataFrame:
        """Recent events of whole days with enough events to have shares."""
        days = self.recent.filter(pl.len().over(DAY) >= self.limits.min_events)
        return days.filter(pl.col(DAY) < day_of(self.since))

    @property
    def enough(self) -> bool:
        """Whether there are enough new events for shares to mean something."""
        return self.new.height >= self.limits.min_events


def day_of(seconds: float) -> str:
    """Return the day of a time, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def moment(seconds: float) -> str:
    """Return a time in words, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def band(values: pl.Series, form: str = "{:.0%}") -> str:
    """Return smallest and largest value in words."""
    low, high = (form.format(value) for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"
