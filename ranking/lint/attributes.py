"""Attributes that are of a later time than the cut: counts of sales, related items, updates, prices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import numpy as np
import polars as pl
from scipy import sparse, stats

from conf.schema import Severity
from features.data import schema
from features.data.dataset import BoolArray, Catalogue, FloatArray, IntArray, LongArray
from features.data.splits import Queries
from features.values.times import unix_seconds
from ranking.lint.findings import Finding, Worth
from ranking.lint.ids import cold_ranking
from ranking.lint.material import Material, counts_before, cut_of, day, first_sales, many
from ranking.lint.texts import blanked
from ranking.lint.worth import Yardstick

_ATTRIBUTE = re.compile(
    r"(?i)(?:^|_)(?:sales?_?rank|bestseller\w*|sold|units?_?sold|sales|orders?|order_?count|purchases?|popularity|"
    r"reviews?|review_?count|num_?reviews|ratings?|rating_?count|average_?rating|views?|clicks?|rank|conversions?|"
    r"trending\w*)(?:_count|_total|_30d|_7d)?(?:_|$)"
)
"""Names of attributes that count what shoppers did."""
_TELLING = 0.3
"""Rank correlation with the test sales of items without earlier events, from which a number is reported."""
_LEAST_ITEMS = 30
_LINKED = 0.02
"""Share of items whose attribute lists other items' ids, from which it is reported."""
_CELLS = 0.8
"""Share of the filled cells, and of the words in them, that are ids of other items."""
_PRICE_STEP = 0.1
"""Relative difference from which a price is another one."""
_LEAST_SALES = 3
"""Sales before the cut, and at or after it, from which an item's prices are compared."""


def counting_attributes(material: Material) -> Iterator[Finding]:
    """Find attributes that count sales by name, and numbers that tell the sales of items not yet sold."""
    catalogue = material.dataset.catalogue
    before = counts_before(material)
    held = np.bincount(material.split.test.targets, minlength=material.items)
    cold = before == 0
    for name in catalogue.attributes:
        values = catalogue.frame[name]
        if not values.dtype.is_numeric() or name == schema.ITEM_ID:
            continue
        filled = values.is_not_null().to_numpy()
        if filled.sum() < 2:
            continue
        numbers = values.cast(pl.Float64).fill_null(0.0).to_numpy()
        named = bool(_ATTRIBUTE.search(name))
        correlation = _tells(numbers, held, cold & filled)
        if not named and correlation == 0.0:
            continue
        sign = correlation or _tells(numbers, before, ~cold & filled, least=0.0) or 1.0
        at = int(np.argmax(np.where(filled, numbers * np.sign(sign), -np.inf)))
        told = (
            f", and ranks the sales of items without earlier events ({correlation:+.2f})"
            if correlation
            else ""
        )
        yield Finding(
            check="sales_in_attribute",
            severity=Severity.serious if correlation else Severity.warning,
            title=f"the attribute '{name}' "
            + (f"is named like a count of sales{told}" if named else told[6:]),
            count=int(filled.sum()),
            total=len(catalogue),
            unit="items",
            example=f"{material.item(at)}: {name} {numbers[at]:g}",
            meaning="A count of sales, ranks or reviews is of the day of the export: as text, filter or "
            "feature it carries what was sold after the cut.",
            fix=f"leave the column '{name}' out of the items file, or compute it from the events before "
            "the cut",
            measure=partial(cold_ranking, keys=(-np.sign(sign) * numbers).astype(np.float32), name=name),
            least=Severity.warning,
        )


def _tells(numbers: FloatArray, sales: LongArray, among: BoolArray, least: float = _TELLING) -> float:
    """Return the rank correlation of numbers with sales among some items, 0 where it is weak."""
    chosen = np.flatnonzero(among)
    if len(chosen) < _LEAST_ITEMS or np.ptp(numbers[chosen]) == 0 or np.ptp(sales[chosen]) == 0:
        return 0.0
    result = stats.spearmanr(numbers[chosen], sales[chosen])
    return float(result.statistic) if abs(result.statistic) >= least and result.pvalue < 1e-4 else 0.0


def related_items(material: Material) -> Iterator[Finding]:
    """Find attributes that list ids of other items, such as also_bought."""
    catalogue = material.dataset.catalogue
    for name in catalogue.attributes:
        links = _links(catalogue, name)
        if links is None:
            continue
        linked = int(np.count_nonzero(np.diff(links.indptr)))
        at = int(np.flatnonzero(np.diff(links.indptr))[0])
        yield Finding(
            check="co_purchases_in_attribute",
            severity=Severity.warning,
            title=f"'{name}' lists ids of other items, for {linked:,} items",
            count=linked,
            total=len(catalogue),
            unit="items",
            example=f"{material.item(at)}: {material.item(int(links.indices[links.indptr[at]]))}",
            meaning="Lists such as also_bought are made from the events of the whole data set, test "
            "included.",
            fix=f"leave the column '{name}' out of the items file",
            measure=partial(_linked, links=links),
        )


def _links(catalogue: Catalogue, name: str) -> sparse.csr_matrix | None:
    """Return which other items a column of lists or texts names, [items, items]; None for other columns."""
    values = catalogue.frame[name]
    if values.dtype == pl.List(pl.String):
        cells = [value or [] for value in values.to_list()]
    elif values.dtype == pl.String:
        cells = [re.split(r"[\s,;|]+", value.strip(" []")) if value else [] for value in values.to_list()]
    else:
        return None
    named = filled = 0
    rows: list[int] = []
    columns: list[int] = []
    for row, cell in enumerate(cells):
        if len(cell) < 2:
            continue
        filled += 1
        others = [other for other in catalogue.find(cell) if other is not None and other != row]
        if len(others) >= _CELLS * len(cell):
            named += 1
            rows += [row] * len(others)
            columns += others
    if named < max(_LINKED * len(cells), 2) or named < _CELLS * filled:
        return None
    shape = (len(cells), len(cells))
    return sparse.csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=shape)


def _linked(yardstick: Yardstick, links: sparse.csr_matrix) -> Worth | None:
    """Compare lists in which items that the last known item names come first with lists as they are."""
    events = yardstick.material.events

    def first(queries: Queries, found: IntArray) -> BoolArray:
        last = events.item[np.maximum(queries.end - 1, 0)]
        return np.take_along_axis(links[last].toarray() > 0, np.maximum(found, 0), axis=1)

    return yardstick.reranked(
        "item_knn, items named by the last known item first, against its own order", first
    )


def later_versions(material: Material) -> Iterator[Finding]:
    """Find items whose row was written after the cut, or created after its own first sale."""
    if not material.dataset.has_time:
        return
    frame, cut = material.dataset.catalogue.frame, cut_of(material)
    before = counts_before(material) > 0
    for name in (schema.UPDATED_AT, schema.CREATED_AT):
        if name not in frame.columns:
            continue
        times = frame.select(unix_seconds(name, frame.schema[name])).to_series()
        later = (times > cut).fill_null(False).to_numpy() & before
        if name == schema.CREATED_AT:
            later = before & (times.fill_null(0).to_numpy() > first_sales(material) + 86_400)
        rows = np.flatnonzero(later)
        if not len(rows):
            continue
        at = int(rows[0])
        what = f"after {day(cut)}" if name == schema.UPDATED_AT else "after their first sale"
        yield Finding(
            check="later_item_versions",
            severity=Severity.warning,
            title=f"'{name}' is {what} for {many(len(rows), 'item', 'items')} with events before the cut",
            count=len(rows),
            total=len(frame),
            unit="items",
            example=f"{material.item(at)}: {name} {frame[name][at]}",
            meaning="Text, price and attributes of these items are of a later time than the queries.",
            fix="take the items as they were at the cut: one row per change, and data.duplicates=newest on "
            "the rows before it",
            measure=partial(blanked, rows=rows),
            least=Severity.warning,
        )


def later_prices(material: Material) -> Iterator[Finding]:
    """Find catalogue prices that are not those paid before the cut, by value and quantity of the events."""
    frame, columns = material.dataset.catalogue.frame, material.columns
    if schema.PRICE not in frame.columns or "value" not in columns.columns or not material.by_time:
        return
    quantity = (
        columns["quantity"]
        if "quantity" in columns.columns
        else pl.Series([1.0]).new_from_index(0, len(columns))
    )
    paid = pl.DataFrame(
        {
            "item": material.events.item,
            "before": material.counted,
            "price": columns["value"].cast(pl.Float64) / quantity.cast(pl.Float64),
        }
    ).filter((pl.col("price") > 0) & pl.col("price").is_finite())
    medians = paid.group_by("item", "before").agg(pl.col("price").median(), pl.len().alias("sales"))
    medians = medians.filter(pl.col("sales") >= _LEAST_SALES)
    both = (
        medians.filter("before")
        .join(medians.filter(~pl.col("before")), on="item", suffix="_after")
        .sort("item")
    )
    listed = (
        frame[schema.PRICE].cast(pl.Float64)[both["item"]] if len(both) else pl.Series([], dtype=pl.Float64)
    )
    shown, old, new = listed.to_numpy(), both["price"].to_numpy(), both["price_after"].to_numpy()
    other = np.abs(shown - old) > _PRICE_STEP * old
    later = other & (np.abs(shown - new) < np.abs(shown - old))
    rows = both["item"].to_numpy()[later]
    if not len(rows):
        return
    at = int(np.flatnonzero(later)[0])
    cheaper = np.zeros(material.items, dtype=np.bool_)
    cheaper[rows] = shown[later] < old[later]
    yield Finding(
        check="later_prices",
        severity=Severity.warning,
        title=f"the catalogue price of {len(rows):,} items is nearer to what was paid after the cut than "
        "before",
        count=len(rows),
        total=len(both),
        unit="items sold before and after the cut",
        example=f"{material.item(int(rows[0]))}: {shown[at]:.2f} in the catalogue, {old[at]:.2f} paid "
        "before the "
        f"cut, {new[at]:.2f} after",
        meaning="The catalogue has the price of the export. Its difference from the price before the cut, "
        "such as a sale in the test window, is not known at the time of the query.",
        fix="take prices as they were at the cut",
        measure=partial(_cheaper_first, cheaper=cheaper),
    )


def _cheaper_first(yardstick: Yardstick, cheaper: BoolArray) -> Worth | None:
    """Compare lists in which items that became cheaper come first with lists as they are."""
    return yardstick.reranked(
        "item_knn, candidates that became cheaper first, against its own order",
        lambda queries, found: cheaper[np.maximum(found, 0)],
    )
