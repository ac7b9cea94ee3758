"""Lists of a published bundle on a window, whatever data it was made from, and whether it learned from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conf.schema import Refit, SplitKind
from features.data.dataset import BoolArray, Catalogue, Dataset, Events, IntArray, LongArray
from features.data.prefixes import user_blocks
from features.data.splits import Queries, ragged_ranges
from ranking.bundle.bundle import Bundle
from ranking.comparison.measured import Measured, measure
from ranking.comparison.window import TEST, Window
from ranking.evaluation.offline import offline_system


@dataclass(frozen=True)
class Translated:
    """A dataset's events and queries in the rows of a bundle, and the way back."""

    events: Events
    queries: Queries
    """Without targets."""
    rows: IntArray  # [bundle items] row in the dataset's catalogue, from its size on for items that it lacks
    others: dict[int, str]
    """Ids of the items that the dataset lacks, by row."""


def translate(dataset: Dataset, queries: Queries, bundle: Bundle) -> Translated:
    """Return events and queries in the rows and kinds of a bundle.

    Events of items that the bundle does not have are left out, as a server leaves them out, and those of
    users without a query, as they are not read; kinds that it does not know count as its weakest one.
    """
    own, other = dataset.catalogue, bundle.catalogue
    if own.ids == other.ids and dataset.kinds == bundle.kinds:
        return Translated(dataset.events, queries, np.arange(len(own), dtype=np.int32), {})
    rows, others = _rows_in(own, other)
    place = np.full(len(own), -1, dtype=np.int32)
    inside = rows < len(own)
    place[rows[inside]] = np.flatnonzero(inside)
    kept = _kept_positions(dataset.events, queries, place >= 0)
    codes = np.array(
        [
            bundle.kinds.index(kind) if kind in bundle.kinds else len(bundle.kinds) - 1
            for kind in dataset.kinds
        ],
        dtype=np.int8,
    )
    events = dataset.events
    translated = Events(
        events.user[kept],
        place[events.item[kept]],
        codes[events.kind[kept]],
        events.time[kept],
        np.searchsorted(kept, events.offsets),
    )
    none = np.zeros(0, dtype=np.int32)
    moved = replace(
        queries,
        end=np.searchsorted(kept, queries.end),
        target_offsets=np.zeros(len(queries) + 1, dtype=np.int64),
        targets=none,
        target_kinds=none,
    )
    return Translated(translated, moved, rows, others)


def _kept_positions(events: Events, queries: Queries, has: BoolArray) -> LongArray:
    """Return the positions of the events of the queries' users whose items [items] are had, ascending."""
    users = np.unique(queries.user)
    begin, sizes = events.offsets[users], events.lengths()[users]
    kept = [np.zeros(0, dtype=np.int64)]
    for low, high in user_blocks(np.concatenate([[0], np.cumsum(sizes)])):
        positions = ragged_ranges(begin[low:high], sizes[low:high])
        kept.append(positions[has[events.item[positions]]])
    return np.concatenate(kept)


def _rows_in(own: Catalogue, other: Catalogue) -> tuple[IntArray, dict[int, str]]:
    """Return the row of each item of `other` in `own`; items that it lacks are numbered after its end."""
    rows = np.zeros(len(other), dtype=np.int32)
    others: dict[int, str] = {}
    for place, (item_id, row) in enumerate(zip(other.ids, own.find(other.ids), strict=True)):
        if row is None:
            row = len(own) + len(others)
            others[row] = item_id
        rows[place] = row
    return rows, others


def bundle_facts(bundle: Bundle, place: str) -> dict[str, Any]:
    """Return what a bundle is, for people."""
    manifest = bundle.manifest
    return {
        "kind": "bundle",
        "place": place,
        "version": bundle.version,
        "created": manifest.get("created"),
        "data_end": _day(bundle.data_end),
        "refit": manifest.get("refit"),
        "dataset_hash": manifest.get("dataset_hash"),
        "exclude_seen": bundle.exclude_seen,
        "items": len(bundle.catalogue),
    }


def _day(seconds: int) -> str:
    return f"{np.datetime64(seconds, 's')}Z"


def measure_bundle(
    name: str, bundle: Bundle, window: Window, place: str, advance: Callable[[int], None] | None = None
) -> Measured:
    """Return a bundle's lists on a window, made by the code that serves.

    Args:
        name: in tables.
        bundle: loaded as a server loads it.
        window: the queries; its rule for seen items applies.
        place: where the bundle is.
        advance: called with the number of queries done.
    """
    started = time.perf_counter()
    moved = translate(window.dataset, window.queries, bundle)
    diversity = float(bundle.manifest.get("rerank", {}).get("diversity", 0.0))
    system = offline_system(bundle.recommender, moved.events, window.exclude_seen, advance, diversity)
    lists = system(moved.queries)
    items = np.where(lists.items >= 0, moved.rows[np.maximum(lists.items, 0)], -1).astype(np.int32)
    seconds = time.perf_counter() - started
    known = np.isin(np.arange(len(window.dataset.catalogue)), moved.rows)
    facts = {
        **bundle_facts(bundle, place),
        "targets_it_cannot_list": int((~known[window.queries.targets]).sum()),
    }
    return measure(name, window, items, lists.scores, facts, moved.others, bundle.catalogue.ids, seconds)


def learned_from(manifest: Mapping[str, Any], trained_on: SplitKind | None, window: Window) -> str | None:
    """Return why a bundle may have learned from the targets of a window, or None if it has not.

    Args:
        manifest: of the bundle.
        trained_on: protocol of the bundle's run; None where it is unknown.
        window: the measured queries.
    """
    end, begins = int(manifest["data_end"]), window.begins
    same = manifest.get("dataset_hash") == window.dataset.info.get("content_hash")
    if manifest.get("refit") == Refit.everything.value and (same or end >= begins):
        return f"it was refitted on all events up to {_day(end)} (refit=everything)"
    ancestors = max(manifest.get("learned_until", {}).values(), default=end)
    if ancestors > max(end, begins):  # a warm start from a model of later data
        return f"its weights descend from a model that has learned up to {_day(ancestors)}"
    if window.name != TEST and same:
        return f"it knows the events of the {window.name} window"
    if window.split.kind is SplitKind.global_time:
        over = end > begins
    else:  # each user's last event is held out, whenever it was
        over = end >= begins and not (same and trained_on is SplitKind.leave_one_out)
    return f"its data end at {_day(end)}, the window begins at {_day(begins)}" if over else None
