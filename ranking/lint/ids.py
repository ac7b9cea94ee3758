"""Ids and rows that encode time: of items, of users, and of the sequence of a history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import stats

from conf.schema import Severity
from features.data.dataset import FloatArray, IntArray, LongArray
from ranking.evaluation.cold_items import cold_parts, random_values
from ranking.lint.findings import METRIC, Finding, Worth
from ranking.lint.material import Material, first_sales, share
from ranking.lint.worth import K, Measured, Yardstick

_CORRELATED = 0.3
"""Rank correlation from which an order is reported."""
_LEAST = 30
"""Items or users below which a correlation says nothing."""
_FOLLOWING = 10.0
"""Steps to the next row, as a multiple of those of a shuffled sequence, above which rows follow histories."""
_LEAST_SHARE = 0.01


def ranks_of_ids(ids: Sequence[str] | pl.Series) -> FloatArray:
    """Return the ranks of ids, as numbers where all are whole numbers, else as text, [ids]."""
    column = pl.Series(ids, dtype=pl.String)
    numbers = column.cast(pl.Float64, strict=False)
    keys = column if numbers.null_count() else numbers
    return keys.rank("dense").to_numpy().astype(np.float32)


def item_order(material: Material) -> Iterator[Finding]:
    """Correlate rows and ids of items with their first sale."""
    if not material.dataset.has_time:
        return
    first = first_sales(material)
    sold = first < np.iinfo(np.int64).max
    if sold.sum() < _LEAST:
        return
    rows = np.arange(material.items, dtype=np.float32)
    reported: FloatArray | None = None
    for name, keys in (("catalogue row", rows), ("item id", ranks_of_ids(material.dataset.catalogue.ids))):
        if reported is not None and abs(_spearman(keys, reported)) > 0.99:
            continue
        correlation = _spearman(keys[sold], first[sold])
        if abs(correlation) < _CORRELATED:
            continue
        reported = keys
        latest = int(np.flatnonzero(sold)[np.argmax(first[sold])])
        yield Finding(
            check="item_order",
            severity=Severity.warning,
            title=f"the {name} tells when an item was first sold (rank correlation {correlation:+.2f})",
            count=int(sold.sum()),
            total=material.items,
            unit="items",
            example=f"{material.item(latest)} was first sold last and has {name} rank "
            f"{int((keys < keys[latest]).sum()) + 1:,} of {material.items:,}",
            meaning="A catalogue is usually numbered as items arrive. Ranking items without events by it, or "
            "breaking ties by it, finds those that will be sold soon without reading anything about them.",
            fix="sort the items file by a hash of the id and break ties at random (this project does); judge "
            "other systems only if they do, too",
            measure=partial(cold_ranking, keys=keys if correlation > 0 else -keys, name=name),
            most=Severity.warning,
        )


def _spearman(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> float:
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(stats.spearmanr(a, b).statistic)


def cold_ranking(yardstick: Yardstick, keys: FloatArray, name: str) -> Worth | None:
    """Compare items without training events in the order of keys, smallest first, with random orders."""
    material = yardstick.material
    split = material.split
    part = cold_parts(material.dataset, yardstick.queries(), split.train_end, split.state_end)[-1]
    if not len(part.queries):
        return None
    order = np.flatnonzero(part.allowed)
    order = order[np.argsort(keys[order], kind="stable")]
    lists = np.full((len(part.queries), K), -1, dtype=np.int32)
    lists[:, : min(K, len(order))] = order[:K]
    ranked = yardstick.measure(lists, part.queries)
    chance = random_values(material.events, part.queries, part.allowed, exclude_seen=False, k=K)[METRIC]
    return yardstick.compare(
        f"the {len(order):,} items without events, ranked by {name} against random order (expectation)",
        ranked,
        Measured(part.queries.user, chance),
    )


def following_ids(material: Material) -> Iterator[Finding]:
    """Find rows that were numbered along the histories, so that the next item often has the next row."""
    events = material.events
    adjacent = np.flatnonzero(events.user[1:] == events.user[:-1])
    if len(adjacent) < _LEAST:
        return
    first, second = events.item[adjacent], events.item[adjacent + 1]
    seed = material.config.seed
    following = second == first + 1
    found = float(following.mean())
    chance = float((np.random.default_rng(seed).permutation(second) == first + 1).mean())
    if found < _LEAST_SHARE or found < _FOLLOWING * max(chance, 1 / len(adjacent)):
        return
    at = int(adjacent[following][0])
    yield Finding(
        check="rows_follow_histories",
        severity=Severity.warning,
        title=f"the next item has the next catalogue row in {share(found, 1)} of the steps, by chance in "
        f"{share(chance, 1)}",
        count=int(following.sum()),
        total=len(adjacent),
        unit="steps",
        example=f"{material.user(int(events.user[at]))}: {material.item(int(events.item[at]))}, then "
        f"{material.item(int(events.item[at + 1]))}",
        meaning="Items were numbered as they came up in the histories, test events included. A model that "
        "reads row numbers or ids, or breaks ties by them, finds test targets by counting on.",
        fix="number the items in another order: sort the items file by a hash of the id",
        measure=_counting_on,
        most=Severity.warning,
    )


def _counting_on(yardstick: Yardstick) -> Worth | None:
    """Compare the next ten rows after the last known item with the same after numbering rows at random."""
    material, queries = yardstick.material, yardstick.queries()
    last = material.events.item[np.maximum(queries.end - 1, 0)].astype(np.int64)

    def next_rows(order: LongArray) -> IntArray:
        """Return the ten items after the last known one in an order of the catalogue, [queries, 10]."""
        place = np.argsort(order)
        places = place[last][:, None] + np.arange(1, K + 1)
        inside = places < material.items
        return np.where(inside, order[np.minimum(places, material.items - 1)], -1).astype(np.int32)

    rows = np.arange(material.items, dtype=np.int64)
    chance = np.random.default_rng(yardstick.seed).permutation(rows)
    return yardstick.compare(
        "the ten rows after the last known item, rows as they are against rows at random",
        yardstick.measure(next_rows(rows), queries),
        yardstick.measure(next_rows(chance), queries),
    )


def user_order(material: Material) -> Iterator[Finding]:
    """Correlate user ids with the time of the first event."""
    events = material.events
    if not material.dataset.has_time or material.dataset.info.get("user_ids_hashed"):
        return
    present = np.flatnonzero(np.diff(events.offsets) > 0)
    if len(present) < _LEAST:
        return
    keys = ranks_of_ids(material.dataset.user_series)[present]
    started = events.time[events.offsets[:-1][present]]
    correlation = _spearman(keys, started)
    if abs(correlation) < _CORRELATED:
        return
    tested = np.isin(present, material.split.test.user)
    chance = ""
    if 0 < tested.sum() < len(tested):
        chosen = stats.rankdata(keys)[tested]
        area = (chosen.sum() - len(chosen) * (len(chosen) + 1) / 2) / (len(chosen) * (~tested).sum())
        chance = f", and which users are in test (area under the curve {max(area, 1 - area):.2f})"
    yield Finding(
        check="user_order",
        severity=Severity.note,
        title=f"user ids tell when a user was first seen (rank correlation {correlation:+.2f}){chance}",
        count=len(present),
        total=events.users,
        unit="users",
        example=f"{material.user(int(present[np.argmax(started)]))} was first seen last",
        meaning="Ids that are numbers in the order of registration are a feature of time for any model "
        "that reads them.",
        fix="privacy.hash_users=true replaces them by keyed hashes",
        unmeasured="no model here reads user ids",
        graded=False,
    )
