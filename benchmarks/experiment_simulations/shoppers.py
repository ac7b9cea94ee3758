"""Invented shoppers with heavy-tailed activity, and what they do before and during an experiment.

A shopper visits `Poisson(activity * RATE)` times a day, sees ten items a visit, clicks each with a chance
of their own, buys a share of what they click, and pays a log-normal price. Activity and chances last, so
that the time before tells something about the time of the experiment. The treatment multiplies the chance
of a click by 1 + lift, so that clicks per impression, purchases and value all have exactly that lift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from lifecycle.experiments.recorded import SURFACE
from lifecycle.experiments.units import ARM, BEFORE, DAY, DAY_US, FIRST, UNIT, Units

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

RATE: Final = 0.15
"""Visits a day at activity 1."""
PER_VISIT: Final = 10
"""Items seen on a visit."""
START_DAY: Final = 19_800
"""Day since 1970 on which experiments begin."""


@dataclass(frozen=True)
class Design:
    """An experiment on invented shoppers."""

    shoppers: int = 4000
    days: int = 14
    before: int = 28
    """Days of the time before."""
    lift: float = 0.1
    decay: float = 0.0
    """The lift on a shopper's day d since the first visit is lift * exp(-decay * d)."""
    share: float = 0.5
    """Of the arm `new`; the rest is `control`."""
    lost: float = 0.0
    """Share of the arm's shoppers whose events get lost."""
    lost_by_activity: bool = False
    """Whether the most active shoppers are lost, as by a redirect that times out, instead of any."""


@dataclass(frozen=True)
class Days:
    """What each shopper did on each day, each field [shoppers, days]."""

    impressions: Doubles
    clicks: Doubles
    purchases: Doubles
    value: Doubles


def simulate(design: Design, seed: int) -> Units:
    """Return the units of one experiment."""
    random = np.random.default_rng(seed)
    count = design.shoppers
    activity = random.lognormal(0.0, 1.0, count)
    appeal = random.beta(2.0, 18.0, count)
    buying = random.beta(2.0, 8.0, count)
    price = random.lognormal(3.0, 0.7, count)
    treated = random.random(count) < design.share
    earlier = _days(random, activity, buying, price, np.repeat(appeal[:, None], design.before, axis=1))
    visits = random.poisson(activity[:, None] * RATE, (count, design.days))
    first = np.where(visits.any(axis=1), (visits > 0).argmax(axis=1), -1)
    since = np.maximum(np.arange(design.days)[None, :] - first[:, None], 0)
    lift = np.where(treated[:, None], design.lift * np.exp(-design.decay * since), 0.0)
    during = _days(random, activity, buying, price, np.minimum(appeal[:, None] * (1 + lift), 1.0), visits)
    kept = first >= 0
    if design.lost:
        kept &= ~(treated & _lost(random, design, activity, kept & treated))
    return _units(treated, kept, first, earlier, during)


def _lost(
    random: np.random.Generator, design: Design, activity: Doubles, among: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    if design.lost_by_activity:
        return np.asarray(activity > np.quantile(activity[among], 1 - design.lost), dtype=np.bool_)
    return np.asarray(random.random(len(activity)) < design.lost, dtype=np.bool_)


def _days(
    random: np.random.Generator, activity: Doubles, buying: Doubles, price: Doubles, appeal: Doubles,
    visits: Integers | None = None,
) -> Days:  # fmt: skip
    visited = random.poisson(activity[:, None] * RATE, appeal.shape) if visits is None else visits
    impressions = visited * PER_VISIT
    clicks = random.binomial(impressions, appeal)
    purchases = random.binomial(clicks, buying[:, None])
    paid = purchases * price[:, None] * random.lognormal(-0.125, 0.5, purchases.shape)
    return Days(*(np.asarray(part, dtype=np.float64) for part in (impressions, clicks, purchases, paid)))


def _units(
    treated: npt.NDArray[np.bool_], kept: npt.NDArray[np.bool_], first: Integers, earlier: Days, during: Days
) -> Units:
    names = np.char.add("shopper-", np.arange(len(treated)).astype(str))
    before = dict(
        zip(
            BEFORE,
            (
                earlier.impressions,
                earlier.clicks,
                np.zeros_like(earlier.clicks),
                earlier.purchases,
                earlier.value,
            ),
            strict=True,
        )
    )
    units = pl.DataFrame(
        {
            UNIT: names[kept],
            ARM: np.where(treated, "new", "control")[kept],
            FIRST: (START_DAY + first[kept]) * DAY_US,
            SURFACE: ["home"] * int(kept.sum()),
            "seen_before": earlier.impressions.sum(axis=1)[kept] > 0,
            **{f"before_{name}": values.sum(axis=1)[kept] for name, values in before.items()},
        }
    )
    row, day = np.nonzero((during.impressions > 0) & kept[:, None])

    def of(part: Doubles) -> Doubles:
        return part[row, day]

    days = pl.DataFrame(
        {
            UNIT: names[row],
            DAY: START_DAY + day,
            "impressions": of(during.impressions),
            "clicks": of(during.clicks),
            "carts": np.zeros(len(row)),
            "purchases": of(during.purchases),
            "value": of(during.value),
            "list_purchases": of(during.purchases),
            "list_value": of(during.value),
            "events": of(during.impressions) + of(during.clicks) + of(during.purchases),
        }
    )
    items = pl.DataFrame({ARM: ["control", "new"], "item": ["a", "a"], "impressions": [1, 1]})
    last = (START_DAY + during.impressions.shape[1]) * DAY_US - 1
    return Units(units, days, items, 0, 0, 0, int(during.purchases.sum()), last)
