"""Checks of the catalogue against that of the last accepted run: items, texts, prices, attributes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import polars as pl

from features.data import schema
from features.text.titles import shortened
from lifecycle.checks.check import Check, Finding, judged, not_judged
from lifecycle.checks.night import Night, band
from lifecycle.checks.profile import TEXT_HASH, Profile, foreign, odd, too_short, value_counts
from lifecycle.checks.statistics import categories, drift

_SHOWN: Final = 3
_CHARS: Final = 40
_NAMES: Final = (
    "items_lost", "items_new", "texts_empty", "texts_changed", "texts_length", "texts_encoding", "price_unit",
    "attributes",
)  # fmt: skip


def catalogue_checks(night: Night) -> Iterator[Check]:
    """Yield the checks of the items."""
    if night.previous is None:
        for name in _NAMES:
            yield not_judged(name, "no earlier run to compare with")
        return
    now = night.profile
    yield from _items(night, night.previous)
    yield from _texts(night, night.previous, now)
    yield _prices(night, night.previous, now)
    yield from _distributions(night, night.previous, now)
    yield _attributes(night, night.previous, now)


def _items(night: Night, previous: Profile) -> Iterator[Check]:
    before, now = previous.items[schema.ITEM_ID], night.tables.items[schema.ITEM_ID]
    lost, new = before.filter(~before.is_in(now.implode())), now.filter(~now.is_in(before.implode()))
    for name, ids, what, fix in (
        ("items_lost", lost, "are gone", "Is the items file complete, and has it the same ids?"),
        ("items_new", new, "are new", "Has the items file the ids of before, or rows of another shop?"),
    ):
        share = len(ids) / max(len(before), 1)
        yield judged(
            Finding(
                name,
                share,
                getattr(night.limits, name),
                f"{len(ids):,} items {what}, {share:.1%} of the {len(before):,} of the last run",
                examples=", ".join(f"'{i}'" for i in ids.head(_SHOWN)),
                fix=fix,
                normal=_past(previous, name),
            ),
            night.limits,
        )


def _past(previous: Profile, name: str, form: str = "{:.1%}") -> str | None:
    """Return the range of a value in the accepted runs in words, or None where there are too few."""
    values = previous.values.get(name, [])
    if len(values) < _SHOWN:
        return None
    return f"{band(pl.Series(values), form)} in {len(values)} accepted runs"


def _texts(night: Night, previous: Profile, now: Profile) -> Iterator[Check]:
    items, limits, text = night.tables.items, night.limits, pl.col(schema.TEXT)

    def shown(condition: pl.Expr) -> str:
        rows = items.filter(condition).head(_SHOWN).select(schema.ITEM_ID, schema.TEXT)
        return ", ".join(f"'{i}': '{shortened(t, _CHARS)}'" for i, t in rows.iter_rows())

    yield judged(
        Finding(
            "texts_empty",
            now.texts.empty - previous.texts.empty,
            limits.texts_empty,
            f"{now.texts.empty:.1%} of the items have no text",
            normal=f"{previous.texts.empty:.1%}, as in the last run",
            examples=shown(too_short(text)),
            fix="Are the columns of text filled, and have they the names of before?",
        ),
        limits,
    )
    if now.text_settings != previous.text_settings:
        for name in ("texts_changed", "texts_length", "texts_encoding"):
            yield not_judged(name, "texts are made of other fields than in the last run")
        return
    both = now.items.select(schema.ITEM_ID, TEXT_HASH).join(
        previous.items.select(schema.ITEM_ID, TEXT_HASH), on=schema.ITEM_ID, suffix="_before"
    )
    changed = both.filter(pl.col(TEXT_HASH) != pl.col(f"{TEXT_HASH}_before"))[schema.ITEM_ID]
    is_changed = pl.col(schema.ITEM_ID).is_in(changed.implode())
    yield judged(
        Finding(
            "texts_changed",
            len(changed) / max(both.height, 1),
            limits.texts_changed,
            f"{len(changed):,} of {both.height:,} items have another text",
            normal=_past(previous, "texts_changed"),
            examples=shown(is_changed),
            fix="Have columns changed their meaning?",
        ),
        limits,
    )
    yield judged(
        Finding(
            "texts_length",
            now.texts.length / max(previous.texts.length, 1e-9),
            limits.texts_length,
            f"texts have {now.texts.length:.0f} characters on average",
            normal=f"{previous.texts.length:.0f}, as in the last run",
            examples=shown(pl.lit(True)),
            fix="Is a column of text missing, or cut?",
            is_factor=True,
        ),
        limits,
    )
    other = int(items.filter(is_changed & foreign(text)).height)
    broken = max(now.texts.odd - previous.texts.odd, other / max(items.height, 1) - previous.texts.foreign)
    yield judged(
        Finding(
            "texts_encoding",
            broken,
            limits.texts_encoding,
            f"{max(now.texts.odd, other / max(items.height, 1)):.1%} of the texts look wrongly decoded",
            normal=f"{previous.texts.odd:.1%}, as in the last run",
            examples=shown(odd(text) | (is_changed & foreign(text))),
            fix="data.encoding=cp1252 (or utf-16, ...) reads text files of another encoding",
        ),
        limits,
    )


def _pairs(previous: Profile, now: Profile, name: str) -> pl.DataFrame:
    """Return the items that have a positive number in both runs: `item_id`, `before`, `now`."""
    if name not in previous.items.columns or name not in now.items.columns:
        return pl.DataFrame(schema={schema.ITEM_ID: pl.String, "now": pl.Float64, "before": pl.Float64})
    both = now.items.select(schema.ITEM_ID, pl.col(name).alias("now")).join(
        previous.items.select(schema.ITEM_ID, pl.col(name).alias("before")), on=schema.ITEM_ID
    )
    return both.filter((pl.col("now") > 0) & (pl.col("before") > 0))


def _prices(night: Night, previous: Profile, now: Profile) -> Check:
    both = _pairs(previous, now, schema.PRICE)
    if both.height < night.limits.min_events:
        return not_judged("price_unit", f"{both.height:,} items have a price in both runs: too few to judge")
    ratio = (both["now"] / both["before"]).to_numpy()
    median = float(np.median(ratio))
    moved = both.filter(pl.Series(np.abs(np.log(ratio)) >= abs(np.log(median)) - 1e-9)).head(_SHOWN)
    return judged(
        Finding(
            "price_unit",
            median,
            night.limits.price_unit,
            f"the price of the median item is {median:g} times that of the last run",
            normal=_past(previous, "price_unit", "{:g}") or "1",
            examples=", ".join(f"'{i}': {b:g} before, {n:g} now" for i, n, b in moved.iter_rows()),
            fix="Has the unit (pence for pounds), the currency or the decimal sign (data.decimal) changed?",
            is_factor=True,
        ),
        night.limits,
    )


def _distributions(night: Night, previous: Profile, now: Profile) -> Iterator[Check]:
    """Yield the stability of every attribute that is a number or had few distinct values."""
    limits = night.limits
    for name in [c for c in now.items.columns if c in previous.items.columns][2:]:
        before, after = (p.items[name].drop_nulls().drop_nans().to_numpy() for p in (previous, now))
        if min(len(before), len(after)) < limits.min_events:
            continue
        distance = drift(before, after)
        yield judged(
            Finding(
                f"psi.{name}",
                distance.psi,
                limits.psi,
                f"{name} of {len(after):,} items: {distance}, median {np.median(after):g}",
                normal=f"median {np.median(before):g}, as in the last run",
                fix=f"Look at the values of {name}: are they in the unit of before?",
            ),
            limits,
        )
    items = night.tables.items
    for name, known in previous.categories.items():
        counts = value_counts(items[name]) if name in items.columns else {}
        if min(sum(known.values()), sum(counts.values())) < limits.min_events:
            continue
        psi = categories(known, counts)
        most = max({*known, *counts}, key=lambda v: abs(_share(counts, v) - _share(known, v)))
        yield judged(
            Finding(
                f"psi.{name}",
                psi,
                limits.psi,
                f"{name}: PSI {psi:.3f}; '{most}' has {_share(counts, most):.1%} of the items",
                normal=f"{_share(known, most):.1%}, as in the last run",
                fix=f"Have the values of {name} been renamed, or is a part of the catalogue missing?",
            ),
            limits,
        )


def _share(counts: dict[str, int], value: str) -> float:
    return counts.get(value, 0) / max(sum(counts.values()), 1)


def _attributes(night: Night, previous: Profile, now: Profile) -> Check:
    """Judge the attribute that has lost most values."""
    lost: dict[str, Any] = {
        name: now.missing.get(name, 1.0) - share for name, share in previous.missing.items()
    }
    if not lost:
        return not_judged("attributes", "the items have no attributes")
    worst = max(lost, key=lambda name: lost[name])
    return judged(
        Finding(
            "attributes",
            max(lost[worst], 0.0),
            night.limits.attributes,
            f"{now.missing.get(worst, 1.0):.1%} of the items have no {worst}"
            + ("" if worst in now.missing else ": the column is gone"),
            normal=f"{previous.missing[worst]:.1%}, as in the last run",
            fix="Is the column filled, and has it the name of before?",
        ),
        night.limits,
    )
