"""Units of an experiment and what they did, from the events.

A unit is exposed from the first event on that came from a list of one of the arms: its first impression, as
a rule. Units that never saw a list are left out (triggered analysis), because no arm can have changed what
they did. Impressions and clicks are those of the arm's lists; carts, purchases and their value are all of
the unit's from its first exposure on, wherever they came from, because a list that only moves purchases
from elsewhere to itself earns nothing. Those of a list alone are separate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import polars as pl

from conf.experiment_report import EventKindsConfig
from features.data.schema import IMPRESSION
from lifecycle.experiments.plan import Plan
from lifecycle.experiments.recorded import ARMS, ITEM, KIND, LIST, PRICE, SINCE, SURFACE, TIME, USER, VALUE

UNIT: Final = "unit"
ARM: Final = "arm"
FIRST: Final = "first"
DAY: Final = "day"
MEASURES: Final = (
    "impressions",
    "clicks",
    "carts",
    "purchases",
    "value",
    "list_purchases",
    "list_value",
    "events",
)
BEFORE: Final = ("shown", "interest", "carts", "purchases", "value")
"""Measures of the time before, whichever lists they came from."""
DAY_US: Final = 86_400_000_000
_TREATED: Final = "treated"
"""Whether an event came from a list of an arm, at any time."""
_UNTREATED: Final = "untreated"
"""Time of a unit's first such event: what it did before cannot be an effect of the arm."""
SESSION_US: Final = 30 * 60 * 1_000_000
"""A session ends after as long a pause."""


@dataclass(frozen=True)
class Units:
    """The units of an experiment."""

    units: pl.DataFrame
    """A row for each: UNIT, ARM, FIRST, SURFACE of the first exposure, `seen_before`, and `before_*`."""
    days: pl.DataFrame
    """A row for each unit and day with events since its exposure: UNIT, DAY since 1970, MEASURES."""
    items: pl.DataFrame
    """Impressions of each ARM and ITEM."""
    mixed: int
    """Units that saw lists of two arms; left out."""
    not_shown: int
    """Units whose first event of an arm is not an impression."""
    unpriced: int
    """Purchases since the exposure without a known value."""
    purchases: int
    last_us: int
    """Time of the last event."""


def experiments_in(table: pl.LazyFrame) -> dict[str, set[str]]:
    """Return the arms of every experiment that the events have."""
    texts = table.select(pl.col(ARMS).unique()).collect(engine="streaming")[ARMS]
    found: dict[str, set[str]] = {}
    for text in texts.drop_nulls():
        for pair in text.split(";"):
            name, parted, arm = pair.partition("=")
            if parted:
                found.setdefault(name, set()).add(arm)
    return found


def units_of(
    table: pl.LazyFrame, plan: Plan, prices: pl.DataFrame | None, kinds: EventKindsConfig, before_days: int
) -> Units:
    """Return the units and what they did.

    Args:
        table: all events, as `recorded.scan` returns them.
        plan: which experiment, when, and by which units.
        prices: of items, see `recorded.prices`; None where only events have values.
        kinds: which kinds count as what.
        before_days: length of the time before the first exposure that counts; where that is earlier than
            the start, the time before it, because the arms have changed what units did since then.
    """
    table = _with_units(table, plan.unit)
    arm = pl.col(ARMS).str.extract(rf"(?:^|;){re.escape(plan.name)}=([^;]*)", 1)
    inside = (pl.col(TIME) >= plan.start_us) & (pl.col(TIME) < plan.end_us)
    table = table.with_columns(pl.when(inside).then(arm).alias(ARM), arm.is_not_null().alias(_TREATED))
    units = _exposed(table)
    mixed = int(units["mixed"].sum())
    units = units.filter(~pl.col("mixed")).drop("mixed")
    facts = _facts(table, prices, kinds)
    begun = units.lazy().select(UNIT, USER, FIRST, _UNTREATED)
    since = facts.join(begun.select(UNIT, FIRST), on=UNIT).filter(
        (pl.col(TIME) >= pl.col(FIRST)) & (pl.col(TIME) < plan.end_us)
    )
    days = (
        since.group_by(UNIT, (pl.col(TIME) // DAY_US).alias(DAY))
        .agg(pl.col(*MEASURES, "unpriced").sum())
        .collect(engine="streaming")
    )
    earlier = (
        facts.drop(UNIT)
        .join(begun, on=USER)
        .filter(pl.col(TIME) < pl.col(_UNTREATED))
        .filter(pl.col(TIME) >= pl.col(_UNTREATED) - before_days * DAY_US)
        .group_by(UNIT)
        .agg(pl.col(*BEFORE).sum().name.prefix("before_"), pl.lit(True).alias("seen_before"))
        .collect(engine="streaming")
    )
    columns = [f"before_{name}" for name in BEFORE]
    units = (
        units.drop(_UNTREATED)
        .join(earlier, on=UNIT, how="left")
        .with_columns(pl.col(*columns).fill_null(0.0), pl.col("seen_before").fill_null(False))
    )
    items = (
        table.filter(pl.col(ARM).is_not_null() & (pl.col(KIND) == IMPRESSION))
        .group_by(ARM, ITEM)
        .agg(pl.len().alias("impressions"))
        .collect(engine="streaming")
    )
    last = (
        table.select(pl.col(TIME).filter(pl.col(TIME) < plan.end_us).max()).collect(engine="streaming").item()
    )
    return Units(
        units.sort(FIRST, UNIT), days.drop("unpriced").sort(UNIT, DAY), items, mixed,
        int((~units["shown_first"]).sum()),
        int(days["unpriced"].sum()), int(days["purchases"].sum()), int(last or 0),
    )  # fmt: skip


def _with_units(table: pl.LazyFrame, unit: str) -> pl.LazyFrame:
    """Return the table with UNIT: the user, or the number of a session, which ends after a pause."""
    if unit == "user":
        return table.with_columns(pl.col(USER).alias(UNIT))
    table = table.sort(USER, TIME)
    paused = (pl.col(TIME) - pl.col(TIME).shift(1)) > SESSION_US
    begins = (paused | (pl.col(USER) != pl.col(USER).shift(1))).fill_null(True)
    return table.with_columns(begins.cum_sum().cast(pl.String).alias(UNIT))


def _exposed(table: pl.LazyFrame) -> pl.DataFrame:
    """Return a row for each unit with an event of an arm between start and end."""
    time = pl.col(TIME).filter(pl.col(ARM).is_not_null()).min()
    first = pl.col(ARM).is_not_null() & (pl.col(TIME) == time)
    return (
        table.filter(pl.col(_TREATED))
        .group_by(UNIT)
        .agg(
            pl.col(USER).first(),
            pl.col(ARM).min(),
            (pl.col(ARM).min() != pl.col(ARM).max()).alias("mixed"),
            time.alias(FIRST),
            pl.col(TIME).min().alias(_UNTREATED),
            pl.col(SURFACE).filter(first).min(),
            (pl.col(KIND).filter(first) == IMPRESSION).any().alias("shown_first"),
        )
        .filter(pl.col(FIRST).is_not_null())
        .collect(engine="streaming")
    )


def _facts(table: pl.LazyFrame, prices: pl.DataFrame | None, kinds: EventKindsConfig) -> pl.LazyFrame:
    """Return amounts by unit and time; an event may be several rows, whose amounts add up."""
    purchase, cart = list(kinds.purchase), [kind for kind in kinds.cart if kind not in kinds.purchase]
    click = [kind for kind in kinds.click if kind not in (*purchase, *cart)]
    ours = pl.col(ARM).is_not_null()
    shown = pl.col(KIND) == IMPRESSION

    def amounts(rows: pl.LazyFrame, **made: pl.Expr) -> pl.LazyFrame:
        names = dict.fromkeys((*MEASURES, *BEFORE, "unpriced"))
        return rows.select(
            UNIT, USER, TIME, *(made.get(name, pl.lit(0.0)).cast(pl.Float64).alias(name) for name in names)
        )

    counted = amounts(
        table,
        events=pl.lit(1.0),
        impressions=shown & ours,
        shown=shown,
        interest=pl.col(KIND).is_in(click),
        carts=pl.col(KIND).is_in(cart),
        purchases=pl.col(KIND).is_in(purchase),
        list_purchases=pl.col(KIND).is_in(purchase) & ours,
    )
    listed = table.filter(pl.col(KIND).is_in(click) & ours & pl.col(LIST).is_not_null())
    clicks = pl.concat(
        [
            listed.group_by(UNIT, USER, LIST, ITEM).agg(pl.col(TIME).min()).select(UNIT, USER, TIME),
            table.filter(pl.col(KIND).is_in(click) & ours & pl.col(LIST).is_null()).select(UNIT, USER, TIME),
        ]
    )
    bought = _valued(table.filter(pl.col(KIND).is_in(purchase)), prices)
    amount = pl.col("amount").fill_null(0.0)
    values = amounts(
        bought,
        value=amount,
        list_value=pl.when(ours).then(amount).otherwise(0.0),
        unpriced=pl.col("amount").is_null(),
    )
    return pl.concat([counted, amounts(clicks, clicks=pl.lit(1.0)), values])


def _valued(bought: pl.LazyFrame, prices: pl.DataFrame | None) -> pl.LazyFrame:
    """Return purchases with `amount`: the event's own value, or the item's price at its time."""
    if prices is None:
        return bought.with_columns(pl.col(VALUE).alias("amount"))
    earliest = prices.group_by(ITEM).agg(pl.col(PRICE).sort_by(SINCE).first().alias("earliest"))
    return (
        bought.sort(TIME)
        .join_asof(
            prices.lazy().sort(SINCE), left_on=TIME, right_on=SINCE, by=ITEM, strategy="backward",
            check_sortedness=False,
        )
        .join(earliest.lazy(), on=ITEM, how="left")
        .with_columns(pl.coalesce(VALUE, PRICE, "earliest").alias("amount"))
    )  # fmt: skip
