"""Feature groups: the history's events of each candidate, and the history as a whole."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from features.candidates.contract import FeatureColumns, FeatureInputs, block
from features.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from features.data.statistics import DAY, MAX_GAP_DAYS
from features.kernels.compiled import compiled
from features.kernels.hash_table import cell_of, empty_table, table_of

NEVER = 100_000
"""Events since an item without events in the history."""


OWN_LABEL: Final = "the shopper's own events of the item"
OWN: Final = (
    "own_count", "own_recent", "own_share", "own_days_since", "own_events_since", "own_due", "own_month",
    "own_season", "own_visits",
)  # fmt: skip
"""Events of the candidate in the history: how many, by recency, as a share of all; days and events since the
newest; these days against the usual distance of two; halved every 30 and every 120 days; share of the visits.
Counts and days as log(1 + x)."""
CLICKS: Final = ("own_clicks",)
"""Events of kinds weaker than a purchase."""


HISTORY: Final = ("history_length", "history_repeats", "days_since_last")
"""The history as a whole: its events, the share that repeats an item, days since the newest."""


@compiled()
def _write_own_items(
    rows: IntArray,
    items: IntArray,
    kinds: npt.NDArray[np.int8],
    times: LongArray,
    offsets: LongArray,
    now: LongArray,
    click_kinds: BoolArray,
    gap_days: FloatArray,
    to: tuple[int, ...],
    history_columns: tuple[int, ...],
    features: FloatArray,
) -> None:
    """Write the features of the history's events of each candidate, and of the history as a whole.

    Args:
        rows: candidates, each once per query, padded with -1, [queries, candidates].
        items: of the histories' events, oldest first, [total events].
        kinds: [total events]; `INTEREST` for events that are not counted as repeats.
        times: [total events] Unix seconds.
        offsets: events of each query, [queries + 1].
        now: [queries] Unix seconds.
        click_kinds: [kinds] True for kinds that are weaker than a purchase.
        gap_days: usual days between purchases, [items].
        to: columns of `OWN` and `CLICKS`.
        history_columns: columns of `HISTORY`.
        features: written to, [queries, candidates, features].

    """
    own_count, own_recent, own_share, own_days_since, own_events_since, own_due = to[:6]
    own_month, own_season, own_visits, own_clicks = to[6:]
    history_length, history_repeats, days_since_last = history_columns
    for query in range(len(rows)):
        keys, indices = table_of(rows[query])
        start, stop = offsets[query], offsets[query + 1]
        length, visits, distinct, latest = stop - start, 0, 0, np.int64(0)
        known = empty_table(length)
        # Per candidate: events; weighted by recency; halved every 30 and every 120 days; clicks.
        sums = np.zeros((rows.shape[1], 5), dtype=np.float64)
        # Per candidate: times of its oldest and newest event, and the events since.
        ends = np.zeros((rows.shape[1], 3), dtype=np.int64)
        for event in range(start, stop):
            item, time, age = items[event], times[event], stop - 1 - event
            # Visits are distinct times: a basket counts once however many lines it has.
            if event == start or time != times[event - 1]:
                visits += 1
            latest = time if event == start else max(latest, time)
            cell = cell_of(known, item)
            if known[cell] < 0:
                known[cell] = item
                distinct += 1
            cell = cell_of(keys, item)
            if keys[cell] >= 0 and kinds[event] >= 0:
                index, days = indices[cell], max(now[query] - time, 0) / DAY
                ends[index, 0] = min(ends[index, 0], time) if sums[index, 0] else time
                ends[index, 1] = max(ends[index, 1], time) if sums[index, 0] else time
                ends[index, 2] = age
                sums[index, 0] += 1.0
                sums[index, 1] += 1.0 / (1.0 + age / 20.0)
                sums[index, 2] += 0.5 ** (days / 30.0)
                sums[index, 3] += 0.5 ** (days / 120.0)
                if len(click_kinds) and click_kinds[kinds[event]]:
                    sums[index, 4] += 1.0
        quiet = min(max(now[query] - latest, 0) / DAY, MAX_GAP_DAYS) if length else MAX_GAP_DAYS
        log_length, log_quiet = math.log1p(length), math.log1p(quiet)
        repeats = 1.0 - distinct / max(length, 1)
        log_longest, log_never = math.log1p(MAX_GAP_DAYS), math.log1p(NEVER)
        for index in range(rows.shape[1]):
            if rows[query, index] < 0:
                continue
            values = features[query, index]
            values[history_length] = log_length
            values[history_repeats] = repeats
            values[days_since_last] = log_quiet
            count = sums[index, 0]
            if count == 0:  # the other columns are 0
                values[own_days_since], values[own_events_since] = log_longest, log_never
                continue
            usual = np.float64(gap_days[rows[query, index]])
            if count > 1:
                usual = (ends[index, 1] - ends[index, 0]) / DAY / (count - 1)
            since = math.log1p(min(max(now[query] - ends[index, 1], 0) / DAY, MAX_GAP_DAYS))
            values[own_count] = math.log1p(count)
            values[own_recent] = math.log1p(sums[index, 1])
            values[own_share] = count / length
            values[own_days_since] = since
            values[own_events_since] = math.log1p(ends[index, 2])
            values[own_due] = since - math.log1p(max(usual, 0.0))
            values[own_month] = math.log1p(sums[index, 2])
            values[own_season] = math.log1p(sums[index, 3])
            values[own_visits] = min(count / visits, 1.0)
            values[own_clicks] = math.log1p(sums[index, 4])


def write_own_items(inputs: FeatureInputs, columns: FeatureColumns, features: FloatArray) -> None:
    """Write the features of the candidates' own events and of the histories."""
    batch = inputs.batch
    _write_own_items(
        inputs.rows, batch.items, batch.kinds_or_interest(), batch.times, batch.offsets, batch.now,
        inputs.click_kinds, inputs.arrays.statistics.gap_days,
        columns.of(*OWN, *CLICKS), columns.of(*HISTORY), features,
    )  # fmt: skip


OWN_ITEMS: Final = block(write_own_items, *OWN, label=OWN_LABEL)
OWN_CLICKS: Final = block(write_own_items, *CLICKS, label=OWN_LABEL)
HABITS: Final = block(write_own_items, *HISTORY, label="the history as a whole")
