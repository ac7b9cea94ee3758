"""Questions to a stored evaluation: any two systems in any part of the data, and whom they serve worst."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from features.data import schema
from features.text.titles import title_column
from ranking.evaluation.page.material import Z
from ranking.evaluation.query_table import (
    QUERIES_FILE,
    RANKS,
    SLICE,
    TARGETS_IN,
    read_queries,
    values_in,
)
from ranking.evaluation.significance import paired_test

METRICS: Final = ("recall@10", "ndcg@10", "hit@10", "mrr", "recall@50", "recall@100")
"""Metrics to choose from, those of the whole list last."""
RESAMPLES: Final = 500
"""Bootstrap samples of a page's interval."""
WORST_SHOWN: Final = 20
"""Shoppers on a page of the worst."""


@dataclass(frozen=True)
class Difference:
    """Two systems in a part of the data, paired by user."""

    users: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    detectable: float
    """Smallest true difference that a test of this size finds in four of five cases."""
    ahead: int
    """Users with a better list from the first system."""
    behind: int


@dataclass(frozen=True)
class SystemMean:
    """A system's mean in a part of the data, with its 95 % interval by the normal approximation."""

    name: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Missed:
    """A choice that is not in the first ten of the measured system's list."""

    item_id: str
    title: str
    lost_at: str


@dataclass(frozen=True)
class WorstCase:
    """A user whom the first system serves worse than the second, or worst of all."""

    user_id: str
    history: int
    choices: int
    first: float
    second: float
    missed: list[Missed]


def _cutoff(metric: str) -> int:
    return int(metric.partition("@")[2] or 10)


def compare(queries: pl.DataFrame, first: str, second: str, part: str, metric: str) -> Difference | None:
    """Return the paired difference, bootstrapped; None without a user in the part.

    Args:
        queries: `queries.parquet`.
        first: system whose metric is the minuend.
        second: the other one.
        part: the slice; empty for all queries.
        metric: one of `METRICS`.

    Raises:
        InputError: an unknown system or slice.
    """
    own = values_in(queries, first, part, (_cutoff(metric),))[0][metric]
    theirs = values_in(queries, second, part, (_cutoff(metric),))[0][metric]
    if len(own) == 0:
        return None
    test = paired_test(own[:, None], theirs[:, None], RESAMPLES, permutations=1)
    return Difference(
        users=len(own),
        first=float(own.mean()),
        second=float(theirs.mean()),
        difference=float(test.difference[0]),
        low=float(test.low[0]),
        high=float(test.high[0]),
        p_value=float(test.p_value[0]),
        detectable=float(test.detectable[0]),
        ahead=int((own > theirs).sum()),
        behind=int((own < theirs).sum()),
    )


def means_of(queries: pl.DataFrame, systems: Sequence[str], part: str, metric: str) -> list[SystemMean]:
    """Return every system's mean in a part, best first."""
    found = []
    for name in systems:
        values = values_in(queries, name, part, (_cutoff(metric),))[0][metric]
        mean = float(values.mean()) if len(values) else 0.0
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
        found.append(SystemMean(name, mean, mean - Z * error, mean + Z * error))
    return sorted(found, key=lambda system: -system.mean)


def worst_cases(
    queries: pl.DataFrame,
    first: str,
    second: str,
    part: str,
    metric: str,
    page: int,
    titles: Mapping[str, str],
    staged: bool,
) -> tuple[list[WorstCase], int]:
    """Return a page of the users with the worst lists, and the number of pages.

    Ordered by how far the first system is behind the second, then by its own metric, then by the number of
    choices, most first. Choices are those of the part.

    Args:
        queries: `queries.parquet`.
        first: the system whose lists are looked at.
        second: the system it is compared with.
        part: the slice; empty for all queries.
        metric: one of `METRICS`.
        page: from 1; beyond the last one it is the last one.
        titles: by item id.
        staged: whether the stages of loss that are stored are the first system's.
    """
    own, keep = values_in(queries, first, part, (_cutoff(metric),))
    theirs, _ = values_in(queries, second, part, (_cutoff(metric),))
    rows = queries.filter(pl.Series(keep))
    inside = f"{TARGETS_IN}{part}"
    if inside not in rows.columns:
        rows = rows.with_columns(pl.col("targets").list.eval(pl.lit(True)).alias(inside))
    rows = rows.with_columns(
        own=pl.Series(own[metric]),
        theirs=pl.Series(theirs[metric]),
        choices=pl.col(inside).list.sum(),
    )
    ordered = rows.with_columns(behind=pl.col("theirs") - pl.col("own")).sort(
        "behind", "own", "choices", "user_id", descending=[True, False, True, False]
    )
    pages = max(-(-len(ordered) // WORST_SHOWN), 1)
    shown = ordered.slice((min(page, pages) - 1) * WORST_SHOWN, WORST_SHOWN)
    return [_case(row, first, inside, titles, staged) for row in shown.iter_rows(named=True)], pages


def _case(
    row: Mapping[str, Any], system: str, inside: str, titles: Mapping[str, str], staged: bool
) -> WorstCase:
    """Return a row of the table, with the choices of the part that are not in the first ten."""
    lost = (row.get("lost_at") if staged else None) or [None] * len(row["targets"])
    missed = [
        Missed(item, titles.get(item, item), (stage or "").replace("_", " "))
        for item, rank, stage, counts in zip(
            row["targets"], row[f"{system}/{RANKS}"], lost, row[inside], strict=True
        )
        if counts and not 0 < rank <= 10
    ]
    return WorstCase(row["user_id"], row["history"], row["choices"], row["own"], row["theirs"], missed)


def part_size(queries: pl.DataFrame, part: str) -> int:
    """Return the number of users in a part."""
    return len(queries) if not part else int(queries[f"{SLICE}{part}"].sum())


class Stored:
    """The tables of evaluations, read once as long as their files do not change."""

    KEPT: Final = 2

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queries: OrderedDict[tuple[Path, int], pl.DataFrame] = OrderedDict()
        self._titles: OrderedDict[tuple[Path, int], dict[str, str]] = OrderedDict()

    def queries(self, folder: Path) -> pl.DataFrame | None:
        """Return the queries of an evaluation; None where an earlier version stored none."""
        path = folder / QUERIES_FILE
        if not path.is_file():
            return None
        with self._lock:
            key = (path, path.stat().st_mtime_ns)
            if key not in self._queries:
                self._queries[key] = read_queries(folder)
                while len(self._queries) > self.KEPT:
                    self._queries.popitem(last=False)
            return self._queries[key]

    def titles(self, work: Path | None) -> dict[str, str]:
        """Return the titles by item id of a run's dataset; none where it is not there."""
        path = None if work is None else work / "dataset" / schema.ITEMS_FILE
        if path is None or not path.is_file():
            return {}
        with self._lock:
            key = (path, path.stat().st_mtime_ns)
            if key not in self._titles:
                self._titles[key] = _read_titles(path)
                while len(self._titles) > self.KEPT:
                    self._titles.popitem(last=False)
            return self._titles[key]


def _read_titles(path: Path) -> dict[str, str]:
    column = title_column(pl.read_parquet_schema(path))
    if column is None:
        return {}
    frame = pl.read_parquet(path, columns=[schema.ITEM_ID, column]).drop_nulls()
    ids: list[str] = frame[schema.ITEM_ID].to_list()
    return dict(zip(ids, map(str, frame[column].to_list()), strict=True))
