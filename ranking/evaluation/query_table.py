"""The measured queries as tables, from which every mean of a result can be computed again for any subset.

`queries.parquet` has a row per query, `lists.parquet` the first ranks of every system's lists. Both are
contracts; docs/evaluation.md describes their columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from conf.errors import InputError, closest
from conf.schema import LIST_DEPTH
from features.data.dataset import BoolArray, Dataset, IntArray, LongArray
from features.data.splits import Queries
from ranking.evaluation.list_providers import Answer
from ranking.evaluation.losses import Outcome, TargetPaths
from ranking.evaluation.metrics import HEADLINE, ValueArray, ranking_metrics, target_ranks
from ranking.evaluation.slices import Slice

QUERIES_FILE: Final = "queries.parquet"
LISTS_FILE: Final = "lists.parquet"
LIST_RANKS: Final = 20
"""Ranks of each list in `lists.parquet`."""
LIST_QUERIES: Final = 20_000
"""Most queries in `lists.parquet`; of more a seeded sample is written."""
BLOCK: Final = 2048
"""Queries converted at a time; bounds the memory of both tables."""
SLICE: Final = "slice/"
"""Prefix of the columns that tell whether a query belongs to a slice."""
TARGETS_IN: Final = "targets_in/"
"""Prefix of the columns that tell which targets of a query belong to a slice of targets."""
RANKS: Final = "ranks"
"""Column, after `SYSTEM/`, of the rank of each target in the system's list, 0 where it is not in it."""


def _ragged(values: pa.Array, offsets: LongArray) -> pa.ListArray:
    """Return a list column of consecutive values."""
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values)


def _users(dataset: Dataset, rows: IntArray) -> pa.Array:
    """Return the ids of users by row; of these alone, as a shop may have many."""
    return dataset.user_series.gather(rows).to_arrow().cast(pa.string())


def _gathered(names: pa.Array, rows: npt.NDArray[np.integer]) -> pa.Array:
    """Return names by row; null for -1."""
    return names.take(pa.array(rows.astype(np.int32), mask=rows < 0))


def _path_columns(paths: TargetPaths, offsets: LongArray) -> dict[str, pa.Array]:
    """Return the columns `lost_at` and `proposed_by`."""
    stages = pa.array([outcome.name for outcome in Outcome])
    outcomes = np.where(paths.outcomes == Outcome.found, -1, paths.outcomes)
    masks, codes = np.unique(paths.proposed_by, return_inverse=True)
    names = ["+".join(n for bit, n in enumerate(paths.sources) if int(mask) >> bit & 1) for mask in masks]
    return {
        "lost_at": _ragged(_gathered(stages, outcomes), offsets),
        "proposed_by": _ragged(_gathered(pa.array(names, pa.string()), codes), offsets),
    }


def _columns(
    dataset: Dataset,
    queries: Queries,
    slices: Sequence[Slice],
    answers: Mapping[str, Answer],
    paths: TargetPaths | None,
    names: Mapping[str, pa.Array],
    block: slice,
) -> pa.Table:
    """Return the rows of a block of queries."""
    index = np.arange(block.start, block.stop)
    part = queries.select(index)
    offsets = part.target_offsets
    targets = slice(int(queries.target_offsets[block.start]), int(queries.target_offsets[block.stop]))
    time = pa.array(part.time, pa.timestamp("s", tz="UTC"), mask=np.full(len(part), not dataset.has_time))
    columns: dict[str, pa.Array] = {
        "user_id": _users(dataset, part.user),
        "time": time,
        "history": pa.array((part.end - dataset.events.offsets[part.user]).astype(np.int32)),
        "targets": _ragged(_gathered(names["items"], part.targets), offsets),
        "target_events": _ragged(_gathered(names["kinds"], part.target_kinds), offsets),
    }
    if paths is not None:
        own = TargetPaths(paths.outcomes[targets], paths.proposed_by[targets], paths.sources, paths.exact)
        columns |= _path_columns(own, offsets)
    for each in slices:
        belongs = np.zeros(len(queries), dtype=np.bool_)
        belongs[each.index] = True
        columns[f"{SLICE}{each.name}"] = pa.array(belongs[block])
        if each.of_targets:
            columns[f"{TARGETS_IN}{each.name}"] = _ragged(pa.array(each.targets[targets]), offsets)
    for system, answer in answers.items():
        for metric, values in answer.values.items():
            columns[f"{system}/{metric}"] = pa.array(values[block])
        ranks = target_ranks(answer.items[block], part)
        columns[f"{system}/{RANKS}"] = _ragged(pa.array(ranks.astype(np.uint8)), offsets)
        columns[f"{system}/first_rank"] = _first_rank(ranks, offsets)
    return pa.table(columns)


def _first_rank(ranks: IntArray, offsets: LongArray) -> pa.Array:
    """Return the best rank of each query's targets; null where none is in the list."""
    best = np.full(len(offsets) - 1, np.iinfo(np.int32).max, dtype=np.int32)
    owners = np.repeat(np.arange(len(best)), np.diff(offsets))
    np.minimum.at(best, owners[ranks > 0], ranks[ranks > 0])
    missing = best == np.iinfo(np.int32).max
    return pa.array(np.where(missing, 0, best).astype(np.uint8), mask=missing)


def write_queries(
    path: Path,
    dataset: Dataset,
    slices: Sequence[Slice],
    queries: Queries,
    answers: Mapping[str, Answer],
    system: str,
) -> None:
    """Write a row per query.

    Args:
        path: of the Parquet file.
        dataset: for user, item and kind names.
        slices: of the queries.
        queries: the measured queries.
        answers: every system's lists for these queries.
        system: whose stages are written.
    """
    names = {
        "items": pa.array(dataset.catalogue.ids, pa.string()),
        "kinds": pa.array(dataset.kinds, pa.string()),
    }
    paths = answers[system].paths if system in answers else None
    writer: pq.ParquetWriter | None = None
    for start in range(0, max(len(queries), 1), BLOCK):
        block = slice(start, min(start + BLOCK, len(queries)))
        table = _columns(dataset, queries, slices, answers, paths, names, block)
        if writer is None:
            writer = pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()


def write_lists(
    path: Path, dataset: Dataset, queries: Queries, answers: Mapping[str, Answer], seed: int
) -> int:
    """Write the first ranks of every system's lists: `user_id`, `system`, `rank` from 1, `item_id`.

    Rows are ordered by query, then by system, then by rank, so that one user's rows are together.

    Args:
        path: of the Parquet file.
        dataset: for user and item ids.
        queries: the measured queries.
        answers: every system's lists for these queries.
        seed: of the sample of queries, where there are more than `LIST_QUERIES`.

    Returns:
        The number of queries that were written.
    """
    chosen = np.arange(len(queries))
    if len(queries) > LIST_QUERIES:
        chosen = np.sort(np.random.default_rng(seed).choice(len(queries), LIST_QUERIES, replace=False))
    items = pa.array(dataset.catalogue.ids, pa.string())
    systems = pa.array(list(answers), pa.string())
    writer: pq.ParquetWriter | None = None
    for start in range(0, max(len(chosen), 1), BLOCK):
        block = chosen[start : start + BLOCK]
        lists = np.stack([answer.items[block, :LIST_RANKS] for answer in answers.values()], axis=1)
        query, system, place = np.nonzero(lists >= 0)
        table = pa.table(
            {
                "user_id": _users(dataset, queries.user[block[query]]),
                "system": _gathered(systems, system),
                "rank": pa.array((place + 1).astype(np.uint8)),
                "item_id": _gathered(items, lists[query, system, place]),
            }
        )
        if writer is None:
            writer = pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()
    return len(chosen)


def read_queries(folder: Path) -> pl.DataFrame:
    """Return the rows of `queries.parquet`.

    Raises:
        InputError: the evaluation has no such file.
    """
    path = folder / QUERIES_FILE
    if not path.is_file():
        raise InputError(f"{path}: missing; `shelfwise evaluate` writes it")
    return pl.read_parquet(path)


def systems_of(frame: pl.DataFrame) -> list[str]:
    """Return the names of the systems in a table of queries, in the order of the result."""
    return [c.removesuffix(f"/{RANKS}") for c in frame.columns if c.endswith(f"/{RANKS}")]


def slices_of(frame: pl.DataFrame) -> list[str]:
    """Return the names of the slices in a table of queries."""
    return [c.removeprefix(SLICE) for c in frame.columns if c.startswith(SLICE)]


def values_in(
    frame: pl.DataFrame, system: str, part: str = "", ks: Sequence[int] = (HEADLINE,)
) -> tuple[dict[str, ValueArray], BoolArray]:
    """Return a system's accuracy metrics in a slice, as `slices` of metrics.json has their means.

    A slice of targets counts its own targets alone, so its metrics are not those of the whole queries, and
    are computed again from the ranks.

    Args:
        frame: of `read_queries`.
        system: its name.
        part: name of a slice; empty for all queries.
        ks: cutoffs.

    Returns:
        Metrics as of `ranking_metrics`, [slice] each, and the mask of the queries in the slice, [rows].

    Raises:
        InputError: an unknown system or slice.
    """
    for name, known in ((system, systems_of(frame)), (part, ["", *slices_of(frame)])):
        if name not in known:
            raise InputError(f"'{name}' is not in {QUERIES_FILE}{closest(name, known)}")
    column = frame[f"{system}/{RANKS}"]
    sizes = column.list.len().to_numpy().astype(np.int64)
    ranks, inside = _flat(column).astype(np.int64), np.ones(int(sizes.sum()), dtype=np.bool_)
    keep = np.ones(len(frame), dtype=np.bool_)
    if part:
        keep = frame[f"{SLICE}{part}"].to_numpy()
        own = f"{TARGETS_IN}{part}"
        inside = _flat(frame[own]).astype(np.bool_) if own in frame.columns else np.repeat(keep, sizes)
    owners = np.repeat(np.cumsum(keep) - 1, sizes)[inside]
    ranks, count = ranks[inside], int(keep.sum())
    # Lists that hold nothing but the targets, each by its position among all: the metrics depend on no more.
    items = np.full((count, LIST_DEPTH), -1, dtype=np.int32)
    listed = ranks > 0
    items[owners[listed], ranks[listed] - 1] = np.flatnonzero(listed)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=count))]).astype(np.int64)
    none, targets = np.zeros(count, dtype=np.int64), np.arange(len(ranks), dtype=np.int32)
    queries = Queries(none.astype(np.int32), none, none, offsets, targets, np.zeros_like(targets))
    return ranking_metrics(items, queries, ks), keep


def _flat(column: pl.Series) -> npt.NDArray[np.generic]:
    """Return the values of a list column, one after another."""
    return column.explode(empty_as_null=False).to_numpy()
