"""Lists of any system from a file of `user_id`, `rank` and `item_id`, checked strictly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from conf.errors import InputError, closest
from features.data.dataset import FloatArray, IntArray
from features.data.histories import contains, histories_of
from features.files.readers import FILE, MALFORMED, ROW, readable, scan_table
from ranking.comparison.window import Window
from ranking.evaluation.list_providers import DEPTH

SETTING: Final = "predictions"
USER: Final = "user_id"
RANK: Final = "rank"
ITEM: Final = "item_id"
SCORE: Final = "score"
REQUIRED: Final = (USER, RANK, ITEM)
_EXAMPLES: Final = 3
_QUERY: Final = "__query"
_ITEM_ROW: Final = "__item"


@dataclass(frozen=True)
class Predictions:
    """The lists of a file on the queries of a window."""

    items: IntArray  # [queries, DEPTH]; -1 is padding; rows from the catalogue's size on are unknown items
    scores: FloatArray  # [queries, DEPTH]; -inf where there is none
    facts: dict[str, Any]
    """Counts of what was read and of what was found on the way."""
    notes: list[str]
    """What to know about the file, one sentence each."""
    others: dict[int, str]
    """Ids of the rows beyond the catalogue."""


def _read(path: str) -> pl.DataFrame:
    """Return user_id and item_id as text, rank as a whole number, and the score.

    Raises:
        InputError: no such file, a missing column, or a row that cannot be read.
    """
    table = scan_table(path, SETTING)
    for name in REQUIRED:
        if name not in table.columns:
            raise InputError(
                f"{SETTING}: {path}: no column '{name}'{closest(name, table.columns)} (there are: "
                f"{', '.join(table.columns)}); the columns must be user_id, rank (from 1), item_id, and "
                "score if there is one"
            )
    columns = [pl.col(c) for c in (*REQUIRED, ROW, MALFORMED, FILE)]
    if SCORE in table.columns:
        columns.append(pl.col(SCORE).cast(pl.Float32, strict=False))
    with readable(f"{SETTING}: {path}"):
        frame = table.frame.select(columns).collect()
    if frame.is_empty():
        raise InputError(f"{SETTING}: {path}: no row below the header; it must have a row per user and rank")
    written = frame[RANK]
    integral = written.cast(pl.Float64, strict=False)
    ranks = pl.when(integral.is_finite() & (integral == integral.floor()) & (integral.abs() < 2**31)).then(
        integral.cast(pl.Int64, strict=False)
    )
    frame = frame.with_columns(
        pl.col(USER, ITEM).cast(pl.String), ranks.alias(RANK), written.cast(pl.String).alias("written")
    )
    _refuse(path, frame)
    return frame


def _refuse(path: str, frame: pl.DataFrame) -> None:
    """Raise the error of the first row that cannot be read."""
    wrong = (
        pl.when(pl.col(MALFORMED).is_not_null())
        .then(pl.col(MALFORMED) + pl.lit("; write the file again"))
        .when(pl.col(USER).is_null() | (pl.col(USER) == ""))
        .then(pl.lit("user_id is empty; give every row its user"))
        .when(pl.col(ITEM).is_null() | (pl.col(ITEM) == ""))
        .then(pl.lit("item_id is empty; leave the row out"))
        .when(pl.col(RANK).is_null())
        .then(pl.format("rank '{}' is not a whole number", pl.col("written").fill_null("")))
        .when(pl.col(RANK) == 0)
        .then(pl.lit("rank 0; ranks count from 1: add 1 to every rank"))
        .when(pl.col(RANK) < 0)
        .then(pl.format("rank {} is below 1", pl.col(RANK)))
    )
    first = frame.lazy().with_columns(wrong.alias("wrong")).filter(pl.col("wrong").is_not_null()).head(1)
    for row in first.collect().iter_rows(named=True):
        raise InputError(f"{SETTING}: {row[FILE]}, row {row[ROW]}: {row['wrong']}")


def _refuse_repeated_ranks(path: str, frame: pl.DataFrame) -> None:
    """Refuse two items of a user at one rank: a second list of the user, or ties, whose order is unknown."""
    counted = frame.group_by(USER, RANK).agg(pl.len().alias("times"), pl.col(ROW).min())
    twice = counted.filter(pl.col("times") > 1)
    if twice.is_empty():
        return
    user, rank, times, _ = (str(value) for value in twice.sort(ROW).row(0))
    users = twice[USER].n_unique()
    every = set(frame.filter(pl.col(USER) == user).group_by(RANK).len()["len"].to_list())
    reason = (
        f"user '{user}' has {times} lists; a user is asked once, so keep one list of each"
        if len(every) == 1
        else f"user '{user}' has rank {rank} {times} times; number the items of each user 1, 2, 3, ..."
    )
    raise InputError(f"{SETTING}: {path}: {reason} ({users:,} users of the file have a rank more than once)")


def _examples(values: Sequence[str]) -> str:
    return ", ".join(f"'{v}'" for v in values[:_EXAMPLES])


def read_lists(path: str) -> pl.DataFrame:
    """Return the lists of a file, a row of user_id, rank and item_id for each item.

    Raises:
        InputError: as `read_predictions`, for what is wrong with the file itself.
    """
    frame = _read(path)
    _refuse_repeated_ranks(path, frame)
    return frame


def read_predictions(path: str, window: Window) -> Predictions:
    """Read the lists of a file for the queries of a window.

    An item unknown to the dataset and a gap in the ranks take up their ranks, as on a page; only the first
    `DEPTH` ranks count.

    Args:
        path: Parquet, CSV, JSON Lines or another format of the data contract; further columns are ignored.
        window: the queries.

    Raises:
        InputError: a file that cannot be read as lists, or that belongs to other users or items.
    """
    frame = read_lists(path)
    dataset, queries = window.dataset, window.queries
    users = pl.DataFrame({USER: dataset.user_series.gather(queries.user)}).with_row_index(_QUERY)
    catalogue = pl.DataFrame({ITEM: pl.Series(dataset.catalogue.ids, dtype=pl.String)})
    catalogue = catalogue.with_row_index(_ITEM_ROW)
    given = frame[USER].unique(maintain_order=True)
    strangers = given.filter(~given.is_in(dataset.user_series.implode())).to_list()
    asked = given.is_in(users[USER].implode()).sum()
    if asked == 0:
        raise InputError(
            f"{SETTING}: {path}: none of its {len(given):,} users has a query in the {window.name} window "
            f"(the file has {_examples(given.to_list())}, the window {_examples(users[USER].to_list())}); "
            "write the ids as they are in the events"
        )
    lists = frame.join(users, on=USER, how="inner").join(catalogue, on=ITEM, how="left")
    unknown = lists.filter(pl.col(_ITEM_ROW).is_null())[ITEM].unique(maintain_order=True)
    if len(unknown) == lists[ITEM].n_unique():
        raise InputError(
            f"{SETTING}: {path}: none of its items is in the catalogue (the file has "
            f"{_examples(unknown.to_list())}, the catalogue {_examples(dataset.catalogue.ids)}); "
            "write the ids as they are in the items"
        )
    others = {len(catalogue) + place: item for place, item in enumerate(unknown.to_list())}
    numbers = pl.DataFrame({ITEM: unknown, "__other": np.fromiter(others, dtype=np.int64, count=len(others))})
    lists = lists.join(numbers, on=ITEM, how="left")
    lists = lists.with_columns(pl.coalesce(_ITEM_ROW, "__other").alias(_ITEM_ROW)).sort(_QUERY, RANK)
    deep = int((lists[RANK] > DEPTH).sum())
    kept = lists.filter(pl.col(RANK) <= DEPTH)
    items = np.full((len(queries), DEPTH), -1, dtype=np.int32)
    scores = np.full((len(queries), DEPTH), -np.inf, dtype=np.float32)
    at = kept[_QUERY].to_numpy(), kept[RANK].to_numpy() - 1
    items[at] = kept[_ITEM_ROW].to_numpy()
    if SCORE in kept.columns:
        scores[at] = kept[SCORE].fill_null(float("nan")).to_numpy()
    facts = {
        "file": Path(path).name,
        "rows": len(frame),
        "users": len(given),
        "queries_with_list": int(asked),
        "queries_without_list": len(queries) - int(asked),
        "users_not_asked": len(given) - int(asked) - len(strangers),
        "unknown_users": len(strangers),
        "unknown_items": len(unknown),
        "rows_of_unknown_items": int(lists["__other"].is_not_null().sum()),
        "rows_below_depth": deep,
        **_within_lists(kept, items, window),
    }
    return Predictions(
        items, scores, facts, _notes(facts, strangers, unknown.to_list(), kept, window), others
    )


def _within_lists(kept: pl.DataFrame, items: IntArray, window: Window) -> dict[str, int]:
    """Count gaps, repeated items and listed items of the history."""
    ranks = kept.group_by(_QUERY).agg(pl.col(RANK).max(), pl.len())
    distinct = kept.select(_QUERY, _ITEM_ROW).n_unique()
    histories = histories_of(window.dataset.events, window.queries)
    span = max(len(window.dataset.catalogue), int(items.max(initial=0)) + 1)
    seen = np.unique(histories.owners() * span + histories.items)
    keys = np.arange(len(items), dtype=np.int64)[:, None] * span + items
    return {
        "lists_with_gaps": int((ranks[RANK] > ranks["len"]).sum()),
        "repeated_items": len(kept) - distinct,
        "items_of_history": int((contains(seen, keys) & (items >= 0)).sum()),
    }


def _notes(
    facts: dict[str, Any], strangers: list[str], unknown: list[str], kept: pl.DataFrame, window: Window
) -> list[str]:
    """Return a sentence per finding that changes how the numbers read."""
    notes = []
    if facts["queries_without_list"]:
        notes.append(
            f"{facts['queries_without_list']:,} of {len(window.queries):,} queries have no list; they count "
            "as empty lists, with every metric 0"
        )
    if facts["unknown_users"]:
        notes.append(
            f"{facts['unknown_users']:,} users are not in the dataset and were ignored, "
            f"e.g. {_examples(strangers)}"
        )
    if facts["users_not_asked"]:
        notes.append(
            f"{facts['users_not_asked']:,} users have no query in the {window.name} window and were ignored"
        )
    if facts["unknown_items"]:
        notes.append(
            f"{facts['unknown_items']:,} items are not in the catalogue, e.g. {_examples(unknown)}; "
            f"they take up {facts['rows_of_unknown_items']:,} ranks and are never right"
        )
    if facts["lists_with_gaps"]:
        ends = kept.group_by(_QUERY, USER, maintain_order=True).agg(pl.col(RANK).max(), pl.len())
        user = ends.filter(pl.col(RANK) > pl.col("len"))[USER][0]
        notes.append(
            f"{facts['lists_with_gaps']:,} lists skip ranks, e.g. that of user '{user}'; items stay at the "
            "ranks that they have"
        )
    if facts["repeated_items"]:
        notes.append(
            f"{facts['repeated_items']:,} rows repeat an item of their list; it counts once and takes up "
            "every rank"
        )
    if facts["items_of_history"] and window.exclude_seen:
        share = facts["items_of_history"] / max(len(kept), 1)
        notes.append(
            f"{share:.1%} of the listed items are in the user's own history, which this evaluation leaves "
            "out of lists; leave them out as well for a fair comparison"
        )
    if facts["rows_below_depth"]:
        notes.append(f"{facts['rows_below_depth']:,} rows are below rank {DEPTH} and were not read")
    return notes
