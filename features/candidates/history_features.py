"""What a query's history says about each of its candidates: as neighbours, as own items, by shared values.

Most of what a history leads to is no candidate. A small table of the query's candidates, which stays in the
processor's cache, tells in a few nanoseconds what is. Sums are added up in the order of the events, whatever
other queries there are.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from features.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from features.data.statistics import DAY, MAX_GAP_DAYS
from features.kernels.compiled import compiled
from features.kernels.prefetch import LINE, fetch

LONG = 100
"""History items whose neighbours the long co-occurrence feature adds up."""
SHORT = 20
"""History items whose neighbours the other features add up."""
AHEAD = 4
"""Events by which fetching is ahead of adding up."""
NEVER = 100_000
"""Events since an item that the history does not hold."""


@compiled()
def _table(count: int) -> IntArray:
    """Return an empty table of open addressing, [cells], for so many keys; -1 is no key."""
    cells = 16
    while cells < 4 * count:
        cells *= 2
    return np.full(cells, -1, dtype=np.int32)


@compiled()
def _cell(keys: IntArray, key: int) -> int:
    """Return the cell of a table that holds a key, or the empty one where it belongs."""
    cell = ((key * 0x9E3779B1) >> 15) & (len(keys) - 1)
    while keys[cell] != key and keys[cell] != -1:
        cell = (cell + 1) & (len(keys) - 1)
    return cell


@compiled()
def _placed(rows: IntArray) -> tuple[IntArray, IntArray]:
    """Return a table of one query's candidates [candidates] and the place of each, [cells]."""
    keys = _table(len(rows))
    places = np.empty(len(keys), dtype=np.int32)
    for place in range(len(rows)):
        if rows[place] >= 0:
            cell = _cell(keys, rows[place])
            keys[cell], places[cell] = rows[place], place
    return keys, places


@compiled()
def _add_neighbours(
    keys: IntArray,
    places: IntArray,
    ids: IntArray,
    weights: FloatArray,
    recency: float,
    newest: float,
    long: float,
    sums: npt.NDArray[np.float64],
    column: int,
) -> None:
    """Add an event's neighbours [k], weighted in three ways, to three columns of sums [candidates, any]."""
    for k in range(len(ids)):
        if ids[k] >= 0:
            cell = _cell(keys, ids[k])
            if keys[cell] >= 0:
                place, weight = places[cell], weights[k]
                sums[place, column] += weight * np.float32(recency)
                sums[place, column + 1] += weight * np.float32(newest)
                sums[place, column + 2] += weight * np.float32(long)


@compiled()
def write_neighbours(
    rows: IntArray,
    items: IntArray,
    offsets: LongArray,
    together_ids: IntArray,
    together_weights: FloatArray,
    follow_ids: IntArray,
    follow_weights: FloatArray,
    text_ids: IntArray,
    text_weights: FloatArray,
    first: int,
    long: int,
    features: FloatArray,
) -> None:
    """Add up how near each candidate is to the history's events in the tables of neighbours.

    Args:
        rows: candidates, each once per query, padded with -1, [queries, candidates].
        items: of the histories' events, oldest first, [total events].
        offsets: events of each query, [queries + 1].
        together_ids: found together, [items, k], as in `features.data.statistics.Neighbours`.
        together_weights: theirs, as of the next two.
        follow_ids: what follows, [items, k].
        follow_weights: [items, k]
        text_ids: alike by text, [items, k].
        text_weights: [items, k]
        first: first of five columns: found together by recency, and with the newest event; the same of what
            follows; alike by text.
        long: column of what is found together over a longer history.
        features: written to, [queries, candidates, features].

    """
    for query in range(len(rows)):
        keys, places = _placed(rows[query])
        sums = np.zeros((rows.shape[1], 9), dtype=np.float64)
        stop = offsets[query + 1]
        for event in range(max(offsets[query], stop - LONG), stop):
            item, age = items[event], stop - 1 - event
            if age >= AHEAD:
                for k in range(0, together_ids.shape[1], LINE):
                    fetch(together_ids, items[event + AHEAD], k)
                    fetch(together_weights, items[event + AHEAD], k)
            recency = 1.0 / (1.0 + age) if age < SHORT else 0.0
            newest, slow = 1.0 if age == 0 else 0.0, 1.0 / (1.0 + age / 20.0)
            _add_neighbours(
                keys, places, together_ids[item], together_weights[item], recency, newest, slow, sums, 0
            )
            if age < SHORT:
                _add_neighbours(
                    keys, places, follow_ids[item], follow_weights[item], recency, newest, slow, sums, 3
                )
                _add_neighbours(
                    keys, places, text_ids[item], text_weights[item], recency, newest, slow, sums, 6
                )
        for place in range(rows.shape[1]):
            if rows[query, place] >= 0:
                features[query, place, first] = sums[place, 0]
                features[query, place, first + 1] = sums[place, 1]
                features[query, place, first + 2] = sums[place, 3]
                features[query, place, first + 3] = sums[place, 4]
                features[query, place, first + 4] = sums[place, 6]
                features[query, place, long] = sums[place, 2]


@compiled()
def write_own_items(
    rows: IntArray,
    items: IntArray,
    kinds: npt.NDArray[np.int8],
    times: LongArray,
    offsets: LongArray,
    now: LongArray,
    click_kinds: BoolArray,
    gap_days: FloatArray,
    first: int,
    clicks: int,
    habits: int,
    features: FloatArray,
) -> None:
    """Describe what the history holds of each candidate itself, and the history as a whole.

    Args:
        rows: candidates, each once per query, padded with -1, [queries, candidates].
        items: of the histories' events, oldest first, [total events].
        kinds: [total events]; below 0 for events that are no repeats of their items.
        times: [total events] Unix seconds.
        offsets: events of each query, [queries + 1].
        now: [queries] Unix seconds.
        click_kinds: [kinds] True for kinds that are weaker than a purchase.
        gap_days: usual days between purchases, [items].
        first: first of nine columns, `own_count` to `own_visits`.
        clicks: column of the clicks.
        habits: first of three columns: length, share that repeats, days since the end.
        features: written to, [queries, candidates, features].

    """
    for query in range(len(rows)):
        keys, places = _placed(rows[query])
        start, stop = offsets[query], offsets[query + 1]
        length, visits, distinct, latest = stop - start, 0, 0, np.int64(0)
        known = _table(length)
        # Of each candidate: events, by recency, halved every 30 and every 120 days, clicks.
        sums = np.zeros((rows.shape[1], 5), dtype=np.float64)
        # And the times of its oldest and newest event, and the events since.
        ends = np.zeros((rows.shape[1], 3), dtype=np.int64)
        for event in range(start, stop):
            item, time, age = items[event], times[event], stop - 1 - event
            # Visits are distinct times: a basket counts once however many lines it has.
            if event == start or time != times[event - 1]:
                visits += 1
            latest = time if event == start else max(latest, time)
            cell = _cell(known, item)
            if known[cell] < 0:
                known[cell] = item
                distinct += 1
            cell = _cell(keys, item)
            if keys[cell] >= 0 and kinds[event] >= 0:
                place, days = places[cell], max(now[query] - time, 0) / DAY
                ends[place, 0] = min(ends[place, 0], time) if sums[place, 0] else time
                ends[place, 1] = max(ends[place, 1], time) if sums[place, 0] else time
                ends[place, 2] = age
                sums[place, 0] += 1.0
                sums[place, 1] += 1.0 / (1.0 + age / 20.0)
                sums[place, 2] += 0.5 ** (days / 30.0)
                sums[place, 3] += 0.5 ** (days / 120.0)
                if len(click_kinds) and click_kinds[kinds[event]]:
                    sums[place, 4] += 1.0
        quiet = min(max(now[query] - latest, 0) / DAY, MAX_GAP_DAYS) if length else MAX_GAP_DAYS
        log_length, log_quiet = math.log1p(length), math.log1p(quiet)
        repeats = 1.0 - distinct / max(length, 1)
        log_longest, log_never = math.log1p(MAX_GAP_DAYS), math.log1p(NEVER)
        for place in range(rows.shape[1]):
            if rows[query, place] < 0:
                continue
            values = features[query, place]
            values[habits], values[habits + 1], values[habits + 2] = log_length, repeats, log_quiet
            count = sums[place, 0]
            if count == 0:  # the other columns are 0
                values[first + 3], values[first + 4] = log_longest, log_never
                continue
            usual = np.float64(gap_days[rows[query, place]])
            if count > 1:
                usual = (ends[place, 1] - ends[place, 0]) / DAY / (count - 1)
            since = math.log1p(min(max(now[query] - ends[place, 1], 0) / DAY, MAX_GAP_DAYS))
            values[first] = math.log1p(count)
            values[first + 1] = math.log1p(sums[place, 1])
            values[first + 2] = count / length
            values[first + 3] = since
            values[first + 4] = math.log1p(ends[place, 2])
            values[first + 5] = since - math.log1p(max(usual, 0.0))
            values[first + 6] = math.log1p(sums[place, 2])
            values[first + 7] = math.log1p(sums[place, 3])
            values[first + 8] = min(count / visits, 1.0)
            values[clicks] = math.log1p(sums[place, 4])


@compiled()
def write_shares(
    rows: IntArray,
    items: IntArray,
    offsets: LongArray,
    attributes: IntArray,
    first: int,
    features: FloatArray,
) -> None:
    """Compare the values of the candidates' attributes with those of the history.

    Args:
        rows: candidates, padded with -1, [queries, candidates].
        items: of the histories' events, oldest first, [total events].
        offsets: events of each query, [queries + 1].
        attributes: codes of values, -1 where there is none, [items, attributes].
        first: first column; per attribute the share of the history with the candidate's value by recency,
            then per attribute whether the newest event has it.
        features: written to, [queries, candidates, features].

    """
    count = attributes.shape[1]
    for query in range(len(rows)):
        start, stop = offsets[query], offsets[query + 1]
        total = 0.0
        for event in range(start, stop):
            total += 1.0 / (1.0 + (stop - 1 - event) / 20.0)
        for column in range(count if stop > start else 0):
            keys = _table(stop - start)
            sums = np.zeros(len(keys), dtype=np.float64)
            for event in range(start, stop):
                code = attributes[items[event], column]
                if code >= 0:
                    cell = _cell(keys, code)
                    keys[cell] = code
                    sums[cell] += 1.0 / (1.0 + (stop - 1 - event) / 20.0)
            newest = attributes[items[stop - 1], column]
            for place in range(rows.shape[1]):
                row = rows[query, place]
                if row >= 0 and attributes[row, column] >= 0:
                    code = attributes[row, column]
                    features[query, place, first + column] = sums[_cell(keys, code)] / total
                    features[query, place, first + count + column] = np.float32(code == newest)
