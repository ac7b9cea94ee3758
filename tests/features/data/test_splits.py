"""Dividing events into what is known and what is asked for: by time, and leaving one out."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import InputError
from conf.schema import SplitConfig, SplitKind
from features.data import splits
from features.data.dataset import Dataset, Events
from features.data.splits import Queries, Split, exclude_seen, make_split, ragged_ranges
from tests.features.divided import ITEMS, LEAVE_ONE_OUT, asked, bought, dates, days
from tests.synthetic import DAY, START, EventRow, make_dataset


def test_ragged_ranges_by_hand() -> None:
    starts, sizes = np.array([5, 0, 7]), np.array([2, 0, 3])
    assert ragged_ranges(starts, sizes).tolist() == [5, 6, 7, 8, 9]
    assert ragged_ranges(starts, np.zeros(3, np.int64)).tolist() == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6)), max_size=8))
def test_ragged_ranges_is_the_loop(parts: list[tuple[int, int]]) -> None:
    starts = np.array([a for a, _ in parts], dtype=np.int64)
    sizes = np.array([n for _, n in parts], dtype=np.int64)
    assert ragged_ranges(starts, sizes).tolist() == [p for a, n in parts for p in range(a, a + n)]


def test_leave_one_out_of_users_with_one_to_five_events() -> None:
    rows = [row for n in range(1, 6) for row in bought(f"u{n}", *range(n))]
    data = make_dataset(rows, ITEMS)
    # Slices: u1 [0,1), u2 [1,3), u3 [3,6), u4 [6,10), u5 [10,15).
    split = make_split(data, LEAVE_ONE_OUT, [])
    assert split.train_end.tolist() == [1, 3, 4, 8, 13]
    assert split.tower_end.tolist() == [1, 3, 4, 7, 12]
    assert split.state_end.tolist() == split.train_end.tolist()
    # Asked at the time of the last known event.
    assert asked(split.test) == [(2, 5, 10, [2]), (3, 9, 20, [3]), (4, 14, 30, [4])]
    assert asked(split.valid) == [(2, 4, 0, [1]), (3, 8, 10, [2]), (4, 13, 20, [3])]
    assert asked(split.ranker) == [(3, 7, 0, [1]), (4, 12, 10, [2])]


def test_few_users_give_the_ranking_head_several_lists_each() -> None:
    rows = [*bought("a", *range(4)), *bought("b", *(n % 9 for n in range(42))), *bought("c", 1, 2, 3)]
    data = make_dataset(rows, ITEMS)

    def split(lists: int) -> Split:
        return make_split(data, SplitConfig(kind=SplitKind.leave_one_out, ranker_lists=lists), [])

    # Slices: a [0,4), b [4,46), c [46,49); of b's 40 training events a tenth is 4.
    one, many = split(1), split(1000)
    assert one.tower_end.tolist() == [1, 43, 47]
    assert many.tower_end.tolist() == [1, 40, 47]
    assert [(user, end) for user, end, _, _ in asked(many.ranker)] == [
        (0, 1),
        (1, 40),
        (1, 41),
        (1, 42),
        (1, 43),
    ]
    assert [(user, end) for user, end, _, _ in asked(split(4).ranker)] == [(0, 1), (1, 42), (1, 43)]
    assert all(end < many.train_end[user] for user, end, _, _ in asked(many.ranker))
    for measured in ("valid", "test"):
        assert asked(getattr(one, measured)) == asked(getattr(many, measured)), "what is measured stays"
    assert one.train_end.tolist() == many.train_end.tolist()


def test_leave_one_out_measures_recency_from_the_last_training_event() -> None:
    rows = [*bought("a", 0, 1, 2, 3, start=100), *bought("b", 4, 5, 6, 7, start=1000)]
    split = make_split(make_dataset(rows, ITEMS), LEAVE_ONE_OUT, [])
    assert (split.tower_time, split.train_time, split.state_time) == (1000, 1010, 1010)


def test_tied_times_do_not_move_leave_one_out() -> None:
    rows = [("u", f"i{n}", "purchase", 7) for n in (3, 1, 2, 0)]
    split = make_split(make_dataset(rows, ITEMS), LEAVE_ONE_OUT, [])
    assert asked(split.test) == [(0, 3, 7, [0])]
    assert asked(split.valid) == [(0, 2, 7, [2])]
    assert asked(split.ranker) == [(0, 1, 7, [1])]


def test_a_repeated_target_is_still_asked_for() -> None:
    split = make_split(make_dataset(bought("u", 5, 1, 5), ITEMS), LEAVE_ONE_OUT, [])
    assert asked(split.test) == [(0, 2, 10, [5])]


def test_without_timestamps_only_leave_one_out_works() -> None:
    data = make_dataset(bought("u", 0, 1, 2, 3), ITEMS, has_time=False)
    split = make_split(data, LEAVE_ONE_OUT, [])
    assert asked(split.test) == [(0, 3, 0, [3])]
    assert (split.tower_time, split.state_time) == (0, 0)
    with pytest.raises(InputError, match="global_time needs timestamps.*split=leave_one_out"):
        make_split(data, SplitConfig(), [])


def test_global_time_by_hand() -> None:
    data = make_dataset(
        days(
            ("a", 0, 0), ("a", 1, 4), ("a", 2, 6), ("a", 3, 8), ("a", 3, 8),
            ("b", 4, 1), ("b", 5, 5), ("b", 4, 9),
            ("c", 6, 9),
            ("d", 7, 2),
        ),
        ITEMS,
    )  # fmt: skip
    # Five events lie before day 6; a tenth of ten events is one, so the ranker's window starts at day 5.
    split = make_split(data, dates(6, 8), [])
    assert [(t - START) // DAY for t in (split.tower_time, split.train_time, split.state_time)] == [5, 6, 8]
    assert split.tower_end.tolist() == [2, 6, 8, 10]
    assert split.train_end.tolist() == [2, 7, 8, 10]
    assert split.state_end.tolist() == [3, 7, 8, 10]
    at = START + np.array([5, 6, 8]) * DAY
    assert asked(split.ranker) == [(1, 6, at[0], [5])]
    assert asked(split.valid) == [(0, 2, at[1], [2])]
    # Twice the same item is one target; c has no history; b's target is in its own history; d is not asked.
    assert asked(split.test) == [(0, 3, at[2], [3]), (1, 7, at[2], [4]), (2, 8, at[2], [6])]


def test_an_event_at_the_cut_belongs_to_the_later_window() -> None:
    data = make_dataset(days(*(("a", n, n) for n in range(10))), ITEMS)
    split = make_split(data, dates(6, 8), [])
    assert split.train_end.tolist() == [6]
    assert split.state_end.tolist() == [8]
    assert asked(split.valid)[0][3] == [6, 7]


def test_fractions_are_shares_of_events() -> None:
    data = make_dataset([("u", f"i{n % 10}", "purchase", START + n * DAY) for n in range(100)], ITEMS)
    split = make_split(data, SplitConfig(test_fraction=0.2, valid_fraction=0.1, ranker_fraction=0.3), [])
    assert (split.tower_end[0], split.train_end[0], split.state_end[0]) == (40, 70, 80)


def test_dates_may_name_a_time_zone() -> None:
    data = make_dataset(days(*(("a", n, n) for n in range(10))), ITEMS)
    plain = make_split(data, dates(6, 8), [])
    config = dates(6, 8)
    assert config.valid_start is not None
    assert config.test_start is not None
    zoned = make_split(
        data,
        replace(config, valid_start=config.valid_start + "Z", test_start=config.test_start + "+00:00"),
        [],
    )
    assert (zoned.train_time, zoned.state_time) == (plain.train_time, plain.state_time)
    shifted = make_split(data, replace(config, test_start=config.test_start + "+02:00"), [])
    assert shifted.state_time == plain.state_time - 7200


@pytest.mark.parametrize("text", ["yesterday", "2020-13-01", "now", "NaT"])
def test_a_date_that_is_none_is_named(text: str) -> None:
    data = make_dataset(days(*(("a", n, n) for n in range(10))), ITEMS)
    with pytest.raises(InputError, match=f"split.test_start: '{text}' is not an ISO date or time"):
        make_split(data, SplitConfig(test_start=text), [])


@pytest.mark.parametrize(
    ("valid", "test"),
    [(6, 6), (8, 6), (0, 8), (6, 20), (-5, 8)],
    ids=["same day", "wrong order", "nothing before", "nothing after", "before the data"],
)
def test_an_empty_window_is_an_input_error(valid: int, test: int) -> None:
    data = make_dataset(days(*(("a", n, n) for n in range(10))), ITEMS)
    with pytest.raises(
        InputError, match="leave an empty window .*set split.valid_start and split.test_start"
    ):
        make_split(data, dates(valid, test), [])


def test_everything_at_one_moment_cannot_be_divided_by_time() -> None:
    data = make_dataset([("u", f"i{n}", "purchase", START) for n in range(10)], ITEMS)
    with pytest.raises(InputError, match="empty window"):
        make_split(data, SplitConfig(), [])


KINDS = {"purchase": 1.0, "click": 0.5, "impression": 0.0}


def test_only_the_asked_kinds_count_as_targets() -> None:
    rows: list[EventRow] = [
        ("u", "i0", "purchase", 0),
        ("u", "i1", "purchase", 1),
        ("u", "i2", "purchase", 2),
        ("u", "i3", "click", 3),
        ("v", "i0", "purchase", 0),
        ("v", "i1", "click", 1),
        ("v", "i2", "purchase", 2),
    ]
    data = make_dataset(rows, ITEMS, KINDS)
    assert [q[0] for q in asked(make_split(data, LEAVE_ONE_OUT, []).test)] == [0, 1]
    assert [q[0] for q in asked(make_split(data, LEAVE_ONE_OUT, ["purchase"]).test)] == [1]
    assert [q[0] for q in asked(make_split(data, LEAVE_ONE_OUT, ["click"]).test)] == [0]
    assert len(make_split(data, LEAVE_ONE_OUT, ["impression"]).test) == 0, "its weight is 0"


def test_a_target_chosen_twice_keeps_its_strongest_kind() -> None:
    rows: list[EventRow] = [("u", f"i{n}", "purchase", START + n * DAY) for n in range(8)]
    rows += [("u", "i8", "click", START + 8 * DAY), ("u", "i8", "purchase", START + 9 * DAY)]
    rows += [("u", "i9", "click", START + 9 * DAY)]
    split = make_split(make_dataset(rows, ITEMS, KINDS), dates(6, 8), [])
    assert dict(zip(split.test.targets.tolist(), split.test.target_kinds.tolist(), strict=True)) == {
        8: 0,
        9: 1,
    }


def test_an_unknown_kind_is_named_with_what_there_is() -> None:
    data = make_dataset(bought("u", 0, 1, 2), ITEMS, KINDS)
    with pytest.raises(InputError, match="no event of kind 'buy'; kinds: purchase, click, impression"):
        make_split(data, LEAVE_ONE_OUT, ["buy"])


def test_selecting_queries_keeps_their_targets_and_the_order_asked_for() -> None:
    queries = Queries(
        np.array([3, 4, 5], np.int32),
        np.array([1, 2, 3]),
        np.array([10, 20, 30]),
        np.array([0, 2, 2, 5]),
        np.array([7, 8, 1, 2, 3], np.int32),
        np.array([0, 1, 0, 0, 1], np.int32),
    )
    chosen = queries.select(np.array([2, 0]))
    assert asked(chosen) == [(5, 3, 30, [1, 2, 3]), (3, 1, 10, [7, 8])]
    assert chosen.target_kinds.tolist() == [0, 0, 1, 0, 1]
    assert asked(queries.select(np.array([True, False, True]))) == asked(queries.select(np.array([0, 2])))
    assert len(queries.select(np.zeros(3, dtype=bool))) == 0


def test_seen_items_stay_in_where_shoppers_come_back_for_them() -> None:
    repeats = make_dataset([r for n in range(3) for r in bought(f"u{n}", 1, 2, 1, 1)], ITEMS)
    fresh = make_dataset([r for n in range(3) for r in bought(f"u{n}", 1, 2, 3, 4)], ITEMS)
    for data, expected in ((repeats, False), (fresh, True)):
        split = make_split(data, LEAVE_ONE_OUT, [])
        assert exclude_seen(data, split, None) is expected
        assert exclude_seen(data, split, not expected) is not expected, "a setting wins"


@pytest.mark.parametrize("repeating", [1, 2])
def test_one_repeat_in_twenty_is_the_border(repeating: int) -> None:
    rows = [r for n in range(20) for r in bought(f"u{n}", 1, 2, 1 if n < repeating else 3, 4)]
    data = make_dataset(rows, ITEMS)
    assert exclude_seen(data, make_split(data, LEAVE_ONE_OUT, []), None) is (repeating == 1)


@pytest.mark.parametrize("block", [1, 4, 1 << 20])
@pytest.mark.parametrize("bins", [2, 5, 1 << 16])
def test_positions_and_places_by_time_are_those_of_a_sort(
    block: int, bins: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "BLOCK", block)
    monkeypatch.setattr(splits, "_BINS", bins)
    rng = np.random.default_rng(5)
    lengths = np.array([3, 0, 7, 1, 0, 5, 0])
    time = np.concatenate([np.sort(rng.integers(-40, 1000, n)) for n in lengths])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    user, none = np.repeat(np.arange(7, dtype=np.int32), lengths), np.zeros(16, dtype=np.int32)
    events = Events(user, none, none.astype(np.int8), time, offsets)
    for moment in (-100, *time.tolist(), 5000):
        expected = [start + int((time[start:stop] < moment).sum()) for start, stop in pairwise(offsets)]
        assert splits.position_at(events, moment).tolist() == expected
    assert [splits.nth_time(events, place) for place in range(16)] == sorted(time.tolist())


@pytest.mark.parametrize("size", [1, 9])
def test_blocks_of_users_do_not_change_a_split(
    size: int, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in SplitKind:
        monkeypatch.setattr(splits, "BLOCK", 1 << 20)
        whole = make_split(dataset, SplitConfig(kind=kind), [])
        seen = exclude_seen(dataset, whole, None)
        monkeypatch.setattr(splits, "BLOCK", size)
        divided = make_split(dataset, SplitConfig(kind=kind), [])
        assert exclude_seen(dataset, whole, None) is seen
        for window in ("ranker", "valid", "test"):
            for field in fields(getattr(whole, window)):
                mine, theirs = (getattr(getattr(s, window), field.name) for s in (divided, whole))
                assert np.array_equal(mine, theirs), (kind, window, field.name)
        assert (divided.tower_time, divided.train_time) == (whole.tower_time, whole.train_time)
