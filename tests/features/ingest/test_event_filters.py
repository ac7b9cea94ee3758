from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import InputError
from conf.schema import FilterConfig
from features.ingest.event_filters import apply_filters, kcore_mask


def _events(rows: Sequence[tuple[str, str, str, int | None, int | None]]) -> pl.DataFrame:
    types = {
        "user_id": pl.String,
        "item_id": pl.String,
        "event": pl.String,
        "timestamp": pl.Int64,
        "order": pl.Int64,
    }
    return pl.DataFrame(rows, schema=types, orient="row")


def test_kcore_unravels_step_by_step() -> None:
    # Users 0 and 1 share items 0 and 1; user 2 hangs on by item 2, which only user 1 has besides.
    users = np.array([0, 0, 1, 1, 1, 2], dtype=np.uint32)
    items = np.array([0, 1, 0, 1, 2, 2], dtype=np.uint32)
    assert kcore_mask(users, items, 1).tolist() == [True] * 6
    # Round 1 drops user 2 (one event), which leaves item 2 with one event, dropped in round 2.
    assert kcore_mask(users, items, 2).tolist() == [True, True, True, True, False, False]
    assert kcore_mask(users, items, 3).tolist() == [False] * 6


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=9), st.integers(1, 3))
def test_kcore_is_the_largest_set_that_satisfies_it(pairs: list[tuple[int, int]], k: int) -> None:
    users = np.array([u for u, _ in pairs], dtype=np.uint32)
    items = np.array([i for _, i in pairs], dtype=np.uint32)

    def satisfies(mask: np.ndarray) -> bool:
        counts = (np.bincount(c[mask])[c[mask]] if mask.any() else np.array([k]) for c in (users, items))
        return all(bool((c >= k).all()) for c in counts)

    found = kcore_mask(users, items, k)
    masks = (np.array(m, dtype=bool) for m in product([False, True], repeat=len(pairs)))
    assert satisfies(found)
    assert int(found.sum()) == max(int(m.sum()) for m in masks if satisfies(m))


def test_duplicates_agree_in_user_item_kind_and_time() -> None:
    events = _events(
        [
            ("a", "1", "view", 10, None),
            ("a", "1", "view", 10, 5),
            ("a", "1", "view", 11, None),
            ("a", "1", "purchase", 10, None),
            ("b", "1", "view", 10, None),
            ("a", "1", "view", None, 5),
            ("a", "1", "view", None, 6),
            ("a", "1", "view", None, 5),
        ]
    )
    result = apply_filters(events, FilterConfig(deduplicate=True))
    assert result.keep.to_list() == [0, 2, 3, 4, 5, 6]
    assert result.counts == {"deduplicate": {"events": 2, "users": 0, "items": 0}}


def test_filters_run_in_order_and_count_what_each_removed() -> None:
    rows = [("bot", str(i), "view", i, None) for i in range(4)]
    rows += [("a", "1", "view", 1, None), ("a", "1", "view", 1, None), ("a", "1", "view", 2, None)]
    rows += [("a", "2", "view", 3, None), ("b", "2", "view", 4, None), ("c", "1", "view", 5, None)]
    result = apply_filters(_events(rows), FilterConfig(deduplicate=True, max_user_events=3, kcore=2))
    # One double of a; then bot's four with items 0 and 3; then b and c (one event each), then item 2.
    assert result.counts == {
        "deduplicate": {"events": 1, "users": 0, "items": 0},
        "max_user_events": {"events": 4, "users": 1, "items": 2},
        "kcore": {"events": 3, "users": 2, "items": 1},
    }
    assert result.keep.to_list() == [4, 6]


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(InputError, match=r"data.filters.kcore=5 leaves no event of 1"):
        apply_filters(_events([("a", "1", "view", 1, None)]), FilterConfig(kcore=5))
