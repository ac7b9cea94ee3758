"""Checks of what the new events are: kinds, users, amounts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import polars as pl

from features.data import schema
from lifecycle.checks.check import Check, Finding, judged, not_judged
from lifecycle.checks.night import Night, band
from lifecycle.checks.statistics import drift, total_variation
from lifecycle.checks.tables import DAY
from serving.state.contracts.user_state import log_name

_SURE: Final = 30.0
"""Expected events of a kind from which its absence is no chance."""
_NAMES: Final = ("kinds", "kinds_missing", "new_users", "top_user", "value", "quantity", "unit_value")


def behaviour_checks(night: Night) -> Iterator[Check]:
    """Yield the checks of kinds, users and amounts, against the days of the weeks before."""
    if not night.enough or night.usual.is_empty():
        why = f"{night.new.height:,} new events" if not night.enough else "no earlier days with enough events"
        for name in _NAMES:
            yield not_judged(name, f"{why}: too few to judge")
        return
    yield _kinds(night)
    yield _kinds_missing(night)
    yield _new_users(night)
    yield _top_user(night)
    yield from _amounts(night)


def _counts(events: pl.DataFrame) -> dict[str, int]:
    return dict(events.group_by(schema.EVENT).len().sort("len", descending=True).iter_rows())


def _shares(counts: dict[str, int]) -> str:
    total = max(sum(counts.values()), 1)
    return ", ".join(f"{kind} {n / total:.1%}" for kind, n in counts.items())


def _kinds(night: Night) -> Check:
    new, usual = _counts(night.new), _counts(night.usual)
    return judged(
        Finding(
            "kinds",
            total_variation(usual, new),
            night.limits.kinds,
            f"the new events are {_shares(new)}",
            normal=_shares(usual),
            fix="Has a kind been renamed, or does a source not deliver? data.kinds maps other names",
        ),
        night.limits,
    )


def _kinds_missing(night: Night) -> Check:
    """Judge the kind that is rarest against what is expected: a rare one may matter most, as purchases do."""
    new, usual = _counts(night.new), _counts(night.usual)
    total = sum(usual.values())
    expected = {kind: n / total * night.new.height for kind, n in usual.items()}
    lost = {kind: 1 - new.get(kind, 0) / e for kind, e in expected.items() if e >= _SURE}
    if not lost:
        return not_judged("kinds_missing", "no kind has enough expected events")
    worst = max(lost, key=lambda kind: lost[kind])
    return judged(
        Finding(
            "kinds_missing",
            max(lost[worst], 0.0),
            1 - 1 / night.limits.volume_low,
            f"{new.get(worst, 0):,} of the new events are '{worst}', {expected[worst]:,.0f} are expected",
            fix="Has the kind been renamed, or does its source not deliver? data.kinds maps other names",
        ),
        night.limits,
    )


def _new_users(night: Night) -> Check:
    """Judge the share of users without earlier events against that of each day before."""
    first = night.tables.events.group_by(schema.USER_ID).agg(pl.col(schema.TIMESTAMP).min().alias("first"))
    days = night.usual.select(DAY, schema.USER_ID).unique().join(first, on=schema.USER_ID)
    opened = pl.from_epoch("first").dt.strftime("%Y-%m-%d") == pl.col(DAY)
    shares = days.group_by(DAY).agg(opened.mean().alias("share"))["share"]
    users = night.new.select(schema.USER_ID).unique().join(first, on=schema.USER_ID)
    share = float((users["first"] > night.since).mean() or 0.0)  # type: ignore[arg-type]
    most = _number(shares.max())
    limit = most + night.limits.new_users
    if limit >= 1:
        return not_judged("new_users", f"{share:.0%} of the users are new; on other days up to {most:.0%}")
    return judged(
        Finding(
            "new_users",
            share,
            limit,
            f"{share:.0%} of {users.height:,} users of the new events have no earlier event",
            normal=f"{band(shares)} of a day",
            fix="Are user ids written differently (1234.0 for 1234), or hashed with another key?",
            warn_above=most + night.limits.warn_at * night.limits.new_users,
        ),
        night.limits,
    )


def _top_user(night: Night) -> Check:
    def largest(events: pl.DataFrame) -> pl.DataFrame:
        counts = events.group_by(DAY, schema.USER_ID).len()
        share = (pl.col("len") / pl.col("len").sum().over(DAY)).alias("share")
        return counts.with_columns(share).sort("share", descending=True)

    shares = largest(night.usual).group_by(DAY).agg(pl.col("share").max())["share"]
    counts = night.new.group_by(schema.USER_ID).len().sort("len", descending=True)
    user, most = counts.row(0)
    usual = float(shares.max() or 0.0)  # type: ignore[arg-type]
    return judged(
        Finding(
            "top_user",
            most / night.new.height,
            max(night.limits.top_user, min(1.5 * usual, 1.0)),
            f"one user ({log_name(user)}) has {most:,} of {night.new.height:,} new events "
            f"({most / night.new.height:.0%})",
            normal=f"{band(shares)} of a day",
            fix="A bot, a till or a guest account? data.missing takes its id for no user, "
            "data.filters.max_user_events leaves it out",
        ),
        night.limits,
    )


def _amounts(night: Night) -> Iterator[Check]:
    """Yield the checks of value, quantity and value per unit by their medians."""
    columns: dict[str, pl.Expr] = {}
    for name in ("value", "quantity"):
        if name in night.new.columns:
            columns[name] = pl.col(name)
    if len(columns) > 1:
        columns["unit_value"] = pl.col("value") / pl.col("quantity")
    for name in ("value", "quantity", "unit_value"):
        if name not in columns:
            yield not_judged(name, f"the events have no {name.replace('unit_value', 'value and quantity')}")
            continue
        amount = columns[name].alias(name)
        new, usual = (_positive(frame.select(DAY, amount), name) for frame in (night.new, night.usual))
        if new.height < night.limits.min_events or usual.is_empty():
            yield not_judged(name, f"{new.height:,} new events have a {name} above 0: too few to judge")
            continue
        yield _amount(night, name, new[name], usual)


def _positive(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    return frame.filter(pl.col(name).is_finite() & (pl.col(name) > 0))


def _amount(night: Night, name: str, new: pl.Series, usual: pl.DataFrame) -> Check:
    medians = usual.group_by(DAY).agg(pl.col(name).median())[name]
    median = float(np.median(new.to_numpy()))
    nearest = min(max(median, _number(medians.min())), _number(medians.max()))
    distance = drift(usual[name].to_numpy(), new.to_numpy())
    return judged(
        Finding(
            name,
            median / nearest,
            night.limits.numbers,
            f"the median {name.replace('_', ' ')} of the new events is {median:g} ({distance})",
            normal=f"{band(medians, '{:g}')} on a day",
            examples=", ".join(f"{v:g}" for v in new.tail(3)),
            fix="Has the unit or the currency changed, or are columns swapped?",
            is_factor=True,
        ),
        night.limits,
    )


def _number(value: Any) -> float:  # noqa: ANN401 - a polars scalar
    return float(value)
