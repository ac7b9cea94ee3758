from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import InputError
from conf.schema import FactorConfig, Refit, SplitConfig, SplitKind
from encoders.factors import Factors
from encoders.sequences import training_windows
from features.candidates import Candidates, candidate_features
from features.dataset import Dataset, FloatArray
from features.histories import histories_of
from features.splits import Queries, Split, exclude_seen, make_split, ragged_ranges
from features.statistics import Statistics, item_statistics
from features.training_windows import ranker_windows, refit_cut
from ranking.assemble import item_arrays, sketch, text_neighbours
from tests.synthetic import DAY, START, EventRow, make_dataset, make_recommender, with_event

LEAVE_ONE_OUT = SplitConfig(kind=SplitKind.leave_one_out)
ITEMS = [f"i{n}" for n in range(10)]


def bought(user: str, *items: int, start: int = 0) -> list[EventRow]:
    return [(user, f"i{item}", "purchase", start + 10 * place) for place, item in enumerate(items)]


def asked(queries: Queries) -> list[tuple[int, int, int, list[int]]]:
    """User, end of the history, time and sorted targets of every query."""
    return [
        (
            int(queries.user[q]),
            int(queries.end[q]),
            int(queries.time[q]),
            sorted(queries.targets[queries.target_offsets[q] : queries.target_offsets[q + 1]].tolist()),
        )
        for q in range(len(queries))
    ]


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
    assert one.tower_end.tolist() == [1, 43, 47] and many.tower_end.tolist() == [1, 40, 47]
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


def days(*moments: tuple[str, int, int]) -> list[EventRow]:
    """Events of (user, item, day)."""
    return [(user, f"i{item}", "purchase", START + day * DAY) for user, item, day in moments]


def dates(valid: int, test: int) -> SplitConfig:
    stamps = [str(np.datetime64(START + day * DAY, "s")) for day in (valid, test)]
    return SplitConfig(valid_start=stamps[0], test_start=stamps[1], ranker_fraction=0.1)


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


def test_ranker_windows_ask_later_and_stop_at_validation() -> None:
    data = make_dataset(
        days(
            ("a", 0, 0),
            ("a", 1, 5),
            ("a", 2, 7),
            ("a", 3, 8),
            ("a", 4, 10),
            *((f"x{n}", 9, 0) for n in range(5)),
        ),
        ITEMS,
    )
    split = make_split(data, replace(dates(8, 10), ranker_fraction=0.2), [])
    first, second = ranker_windows(data, split, [], 2)
    # Validation covers two days, and so does every window but the last ones, which have one at least.
    assert (first.time, second.time) == (START + 5 * DAY, START + 7 * DAY)
    assert asked(first.queries) == [(0, 1, first.time, [1])]
    # Day 5 is history by now; day 8 is validation's.
    assert asked(second.queries) == [(0, 2, second.time, [2])]
    assert second.end.tolist()[0] == 2
    assert len(ranker_windows(data, split, [], 1)) == 1


def test_a_ranker_window_shorter_than_half_of_validation_is_asked_once() -> None:
    """Validation covers three days, the ranker's window one: no later moment leaves half as much time."""
    data = make_dataset(days(*(("a", n % 10, n) for n in range(16))), ITEMS)
    split = make_split(data, replace(dates(10, 13), ranker_fraction=1 / 16), [])
    assert split.tower_time == START + 9 * DAY
    [window] = ranker_windows(data, split, [], 3)
    assert asked(window.queries) == [(0, 9, START + 9 * DAY, [9])], "day 10 is validation's"


def test_leave_one_out_has_one_ranker_window() -> None:
    data = make_dataset(bought("a", 1, 2, 3, 4, 5), ITEMS)
    windows = ranker_windows(data, make_split(data, LEAVE_ONE_OUT, []), [], 3)
    assert [asked(w.queries) for w in windows] == [[(0, 2, windows[0].time, [3])]]


def test_a_refit_asks_on_to_its_cut() -> None:
    data = make_dataset(days(*(("a", n % 10, n) for n in range(20))), ITEMS)
    split = make_split(data, replace(dates(14, 18), ranker_fraction=0.19), [])
    assert split.tower_time == START + 10 * DAY
    cut = refit_cut(data, split, Refit.before_test)
    assert cut is not None and cut.time == split.state_time and cut.end.tolist() == [18]
    plain, longer = ranker_windows(data, split, [], 3), ranker_windows(data, split, [], 3, cut)
    assert [(w.time - START) // DAY for w in plain] == [10, 11, 12]
    # Twice the window, twice the moments; none asks for what test asks for.
    assert len(longer) == 6 and longer[-1].time == START + 16 * DAY
    assert [w.after_training for w in longer] == [w.time >= split.train_time for w in longer]
    assert max(t for w in longer for t in w.queries.targets) <= 9 and asked(longer[-1].queries)[0][3] == [
        6,
        7,
    ]
    everything = refit_cut(data, split, Refit.everything)
    assert everything is not None and everything.end.tolist() == [20]
    assert refit_cut(data, split, Refit.never) is None


def test_leave_one_out_is_refitted_on_everything_or_not_at_all() -> None:
    data = make_dataset(bought("a", 1, 2, 3, 4, 5), ITEMS)
    split = make_split(data, LEAVE_ONE_OUT, [])
    assert refit_cut(data, split, Refit.before_test) is None, "published tables do not learn from validation"
    cut = refit_cut(data, split, Refit.everything)
    assert cut is not None and cut.end.tolist() == [5]
    first, second = ranker_windows(data, split, [], 3, cut)
    assert (asked(first.queries)[0][3], asked(second.queries)[0][3]) == ([3], [4])
    assert (first.after_training, second.after_training) == (False, True)


def test_an_event_at_the_cut_belongs_to_the_later_window() -> None:
    data = make_dataset(days(*(("a", n, n) for n in range(10))), ITEMS)
    split = make_split(data, dates(6, 8), [])
    assert split.train_end.tolist() == [6] and split.state_end.tolist() == [8]
    assert asked(split.valid)[0][3] == [6, 7]


def test_fractions_are_shares_of_events() -> None:
    data = make_dataset([("u", f"i{n % 10}", "purchase", START + n * DAY) for n in range(100)], ITEMS)
    split = make_split(data, SplitConfig(test_fraction=0.2, valid_fraction=0.1, ranker_fraction=0.3), [])
    assert (split.tower_end[0], split.train_end[0], split.state_end[0]) == (40, 70, 80)


def test_dates_may_name_a_time_zone() -> None:
    data = make_dataset(days(*(("a", n, n) for n in range(10))), ITEMS)
    plain = make_split(data, dates(6, 8), [])
    config = dates(6, 8)
    assert config.valid_start is not None and config.test_start is not None
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


def past(split: Split) -> list[object]:
    """Everything of a split that is computed before its test window."""
    return [
        split.tower_end.tolist(),
        split.train_end.tolist(),
        split.tower_time,
        split.train_time,
        split.state_time,
        asked(split.ranker),
        asked(split.valid),
    ]


def known(dataset: Dataset, split: Split, vectors: FloatArray) -> list[np.ndarray]:
    """Statistics, factors, candidate features and training windows as of the validation queries."""
    statistics = item_statistics(dataset, split.train_end, split.train_time, 5, 5)
    begin = dataset.events.offsets[:-1]
    factors = Factors.fit(
        dataset.events, ragged_ranges(begin, split.train_end - begin), len(vectors), dataset.kind_weights,
        FactorConfig(dim=4), 0,
    )  # fmt: skip
    assert factors is not None
    near = text_neighbours(sketch(vectors), 20)
    factors = factors.lend(near)
    made = make_recommender(dataset, vectors, factors=factors)
    arrays = item_arrays(statistics, vectors, None, made.config, near, factors=factors)
    batch = histories_of(dataset.events, split.valid)
    users = made.encode(batch)
    rows = np.tile(np.arange(len(vectors), dtype=np.int32), (len(batch), 1))
    candidates = Candidates(rows, np.ones(rows.shape, np.int16), np.ones(rows.shape, np.float32))
    best = np.zeros((len(batch), 2), np.float32)
    features = candidate_features(batch, candidates, arrays, users, best, np.zeros(2, np.bool_))
    start, stop = training_windows(dataset.events, split.train_end, 4, np.random.default_rng(0))
    trained = [dataset.events.item[a:b] for a, b in zip(start, stop, strict=True)]
    fields = [getattr(statistics, name) for name in Statistics.__dataclass_fields__]
    fields += [factors.vectors, factors.dual, users.factors]
    return [*fields, np.argsort(-statistics.recent, kind="stable"), features, start, stop, *trained]


@pytest.mark.parametrize("kind", list(SplitKind))
def test_the_future_changes_nothing_in_the_past(
    dataset: Dataset, text_vectors: FloatArray, kind: SplitKind
) -> None:
    config = LEAVE_ONE_OUT if kind is SplitKind.leave_one_out else SplitConfig()
    split = make_split(dataset, config, [])
    assert asked(split.test)
    # The last event of a user who is asked in the test window: another item, a century later.
    last = int(dataset.events.offsets[split.test.user[0] + 1]) - 1
    planted = with_event(
        dataset, last, item=(int(dataset.events.item[last]) + 1) % 60, time=START + 36_500 * DAY
    )
    after = make_split(planted, config, [])
    assert asked(after.test) != asked(split.test)
    assert past(after) == past(split)
    for before, now in zip(
        known(dataset, split, text_vectors), known(planted, after, text_vectors), strict=True
    ):
        assert np.array_equal(before, now)


def test_a_planted_future_row_changes_nothing_in_the_past(dataset: Dataset, text_vectors: FloatArray) -> None:
    config = SplitConfig(
        valid_start=str(np.datetime64(START + 28 * DAY, "s")),
        test_start=str(np.datetime64(START + 34 * DAY, "s")),
    )
    split = make_split(dataset, config, [])
    events = dataset.events
    users = np.append(events.user, events.users - 1).astype(np.int32)
    planted = replace(
        dataset,
        events=replace(
            events,
            user=users,
            item=np.append(events.item, 0).astype(np.int32),
            kind=np.append(events.kind, 0).astype(np.int8),
            time=np.append(events.time, START + 36_500 * DAY),
            offsets=np.append(events.offsets[:-1], len(users)),
        ),
    )
    after = make_split(planted, config, [])
    assert past(after) == past(split)
    assert len(after.test.targets) == len(split.test.targets) + 1
    for before, now in zip(
        known(dataset, split, text_vectors), known(planted, after, text_vectors), strict=True
    ):
        assert np.array_equal(before, now)
