"""The moments that the ranking head is asked for, and the cut that a refit goes up to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conf.schema import Refit, SplitConfig
from features.data.splits import Queries, make_queries, make_split
from features.data.training_windows import ranker_windows, refit_cut
from tests.features.divided import ITEMS, LEAVE_ONE_OUT, asked, bought, dates, days
from tests.synthetic import DAY, START, make_dataset


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
    assert len(list(ranker_windows(data, split, [], 1))) == 1


def test_a_window_is_made_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queries of all of them would be several times the users of a shop."""
    data = make_dataset(days(*(("a", n % 10, n) for n in range(20))), ITEMS)
    split = make_split(data, replace(dates(14, 18), ranker_fraction=0.19), [])
    made = []

    def counted(*given: Any) -> Queries:
        made.append(given)
        return make_queries(*given)

    monkeypatch.setattr("features.data.training_windows.make_queries", counted)
    windows = ranker_windows(data, split, [], 3)
    next(windows)
    assert len(made) == 1
    assert len(list(windows)) == 2


def test_a_ranker_window_shorter_than_half_of_validation_is_asked_once() -> None:
    """Validation covers three days, the ranker's window one: no later moment leaves half as much time."""
    data = make_dataset(days(*(("a", n % 10, n) for n in range(16))), ITEMS)
    split = make_split(data, replace(dates(10, 13), ranker_fraction=1 / 16), [])
    assert split.tower_time == START + 9 * DAY
    [window] = ranker_windows(data, split, [], 3)
    assert asked(window.queries) == [(0, 9, START + 9 * DAY, [9])], "day 10 is validation's"


def test_only_what_was_met_by_the_end_of_a_window_was_on_sale_in_it() -> None:
    """Item 2 arrives in the first window, item 3 after it, item 4 in validation, which nobody knows yet."""
    first = [("a", 0, 0), ("a", 1, 1), ("a", 2, 6), ("a", 3, 8), ("a", 4, 10), ("a", 0, 12)]
    data = make_dataset(days(*first, *((f"x{n}", 0, 0) for n in range(6))), ITEMS)
    split = make_split(data, replace(dates(9, 11), ranker_fraction=0.16), [])
    windows = list(ranker_windows(data, split, [], 2))
    assert [(w.time - START) // DAY for w in windows] == [6, 8]
    sale = [np.flatnonzero(w.on_sale(data.events, len(data.catalogue))).tolist() for w in windows]
    assert sale == [[0, 1, 2], [0, 1, 2, 3]]


def test_leave_one_out_knows_all_but_the_last_two_items_of_a_history() -> None:
    data = make_dataset(bought("a", 1, 2, 3, 4, 5), ITEMS)
    [window] = ranker_windows(data, make_split(data, LEAVE_ONE_OUT, []), [], 1)
    assert np.flatnonzero(window.on_sale(data.events, len(data.catalogue))).tolist() == [1, 2, 3]


def test_leave_one_out_has_one_ranker_window() -> None:
    data = make_dataset(bought("a", 1, 2, 3, 4, 5), ITEMS)
    [window] = ranker_windows(data, make_split(data, LEAVE_ONE_OUT, []), [], 3)
    assert asked(window.queries) == [(0, 2, window.time, [3])]


def test_a_refit_asks_on_to_its_cut() -> None:
    data = make_dataset(days(*(("a", n % 10, n) for n in range(20))), ITEMS)
    split = make_split(data, replace(dates(14, 18), ranker_fraction=0.19), [])
    assert split.tower_time == START + 10 * DAY
    cut = refit_cut(data, split, Refit.before_test)
    assert cut is not None
    assert cut.time == split.state_time
    assert cut.end.tolist() == [18]
    plain, longer = (list(ranker_windows(data, split, [], 3, end)) for end in (None, cut))
    assert [(w.time - START) // DAY for w in plain] == [10, 11, 12]
    # Twice the window, twice the moments; none asks for what test asks for.
    assert len(longer) == 6
    assert longer[-1].time == START + 16 * DAY
    assert [w.after_training for w in longer] == [w.time >= split.train_time for w in longer]
    assert max(t for w in longer for t in w.queries.targets) <= 9
    assert asked(longer[-1].queries)[0][3] == [
        6,
        7,
    ]
    everything = refit_cut(data, split, Refit.everything)
    assert everything is not None
    assert everything.end.tolist() == [20]
    assert refit_cut(data, split, Refit.never) is None


def test_the_moments_of_a_refit_are_bounded_by_the_setting_however_the_events_lie_in_time() -> None:
    """340 of 400 events share a minute and the others lie months apart; then a twentieth is of the future."""
    minute = [(f"u{n % 20}", f"i{n % 10}", "purchase", START + n * 60 // 340) for n in range(340)]
    later = [(f"u{n % 20}", f"i{n % 10}", "purchase", START + n * DAY) for n in range(1, 61)]
    regular = [(f"u{n % 20}", f"i{n % 10}", "purchase", START + n * 60) for n in range(380)]
    future = [(f"u{n}", f"i{n % 10}", "purchase", START + 3650 * DAY + n) for n in range(20)]
    for rows in (minute + later, regular + future):
        data = make_dataset(rows, ITEMS)
        split = make_split(data, SplitConfig(), [])
        for refit in (Refit.before_test, Refit.everything):
            windows = list(ranker_windows(data, split, [], 4, refit_cut(data, split, refit)))
            assert 1 <= len(windows) <= 8


def test_leave_one_out_is_refitted_on_everything_or_not_at_all() -> None:
    data = make_dataset(bought("a", 1, 2, 3, 4, 5), ITEMS)
    split = make_split(data, LEAVE_ONE_OUT, [])
    assert refit_cut(data, split, Refit.before_test) is None, "published tables do not learn from validation"
    cut = refit_cut(data, split, Refit.everything)
    assert cut is not None
    assert cut.end.tolist() == [5]
    first, second = ranker_windows(data, split, [], 3, cut)
    assert (asked(first.queries)[0][3], asked(second.queries)[0][3]) == ([3], [4])
    assert (first.after_training, second.after_training) == (False, True)
