from __future__ import annotations

import numpy as np
import pytest

from ranking.baselines import recent_popularity as module
from ranking.baselines.recent_popularity import RecentPopularity
from tests.ranking.baselines.test_registry import ask, everything, make_events
from tests.synthetic import DAY


def test_recent_popularity_counts_the_window_before_each_query() -> None:
    # item 0 sold three times long ago, item 1 twice on day 60, item 2 once on day 99
    events = make_events([[0, 0, 0, 1, 1, 2]], [[1, 2, 3, 60 * DAY, 60 * DAY, 99 * DAY]])
    baseline = RecentPopularity(days=28)
    baseline.fit(events, everything(events), 100 * DAY, 4)
    asked = ask(events, [0, 0, 0], end=[0, 0, 0], time=[100 * DAY, 61 * DAY, 60 * DAY])
    items, scores = baseline.recommend(events, asked, 4, False)
    assert items.tolist() == [
        [2, 0, 1, 3],  # only day 99 is within 28 days; the rest by overall share 3 : 2
        [1, 0, 2, 3],
        [0, 1, 2, 3],  # events of this very moment have not been seen yet
    ]
    np.testing.assert_allclose(scores[0], [1 + 0.5 / 3, 0.5, 0.5 * 2 / 3, 0], rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(scores[1, 0], 2 + 0.5 * 2 / 3, rtol=1e-6)


def test_recent_popularity_never_counts_past_its_own_cut() -> None:
    events = make_events([[0, 1]], [[5 * DAY, 9 * DAY]])
    baseline = RecentPopularity(days=28)
    baseline.fit(events, everything(events), 8 * DAY, 2)
    items, scores = baseline.recommend(events, ask(events, [0], end=[0], time=[50 * DAY]), 2, False)
    assert items.tolist() == [[0, 1]]
    assert scores[0].tolist() == [1.5, 0.5]


def test_queries_of_one_day_share_the_list_of_the_first() -> None:
    events = make_events([[0, 1]], [[10 * DAY, 10 * DAY + 3600]])
    baseline = RecentPopularity(days=1)
    baseline.fit(events, everything(events), 20 * DAY, 2)
    asked = ask(events, [0, 0], end=[0, 0], time=[10 * DAY + 7200, 10 * DAY + 1800])
    items, scores = baseline.recommend(events, asked, 1, False)
    assert items.tolist() == [[0], [0]]
    assert scores.tolist() == [[1.5], [1.5]]


def test_recent_popularity_without_times_takes_the_last_tenth_of_each_history() -> None:
    events = make_events([[0] * 19 + [1], [2, 2, 2], []])
    baseline = RecentPopularity()
    baseline.fit(events, everything(events), 0, 4)
    items, scores = baseline.recommend(events, ask(events, [2]), 4, False)
    # last 2 of 20 and last 1 of 3: one 0, one 1, one 2; overall share 18 : 1 : 3 of the rest decides
    assert items.tolist() == [[0, 2, 1, 3]]
    np.testing.assert_allclose(scores[0], [1.5, 1 + 0.5 * 3 / 19, 1 + 0.5 / 19, 0], rtol=1e-6, atol=1e-3)
    assert "tenth" in baseline.describe()


def test_counts_in_blocks_and_of_some_days_at_a_time_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    sizes = rng.integers(0, 60, 40)
    items = [rng.integers(0, 9, size).tolist() for size in sizes]
    times = [sorted(rng.integers(0, 100 * DAY, size).tolist()) for size in sizes]
    events = make_events(items, times)
    owner = np.arange(40)
    asked = ask(events, owner.tolist(), time=rng.integers(0, 100 * DAY, 40).tolist())
    baseline = RecentPopularity(days=7)
    end = events.offsets[:-1] + (9 * events.lengths()) // 10
    baseline.fit(events, end, 95 * DAY, 9)
    whole = baseline.recommend(events, asked, 9, False)
    monkeypatch.setattr(module, "BLOCK", 17)
    monkeypatch.setattr(module, "_CELLS", 4 * 9)
    in_parts = baseline.recommend(events, asked, 9, False)
    assert whole[0].tolist() == in_parts[0].tolist()
    np.testing.assert_allclose(whole[1], in_parts[1])
    used = np.concatenate([np.arange(a, b) for a, b in zip(events.offsets[:-1], end, strict=True)])
    for user, rows, scores in zip(owner, *whole, strict=True):
        moment = min(asked.time[asked.time // DAY == asked.time[user] // DAY].min(), 95 * DAY)
        inside = used[(events.time[used] >= moment - 7 * DAY) & (events.time[used] < moment)]
        expected = np.bincount(events.item[inside], minlength=9) + 0.5 * baseline.share
        np.testing.assert_allclose(scores, expected[rows], rtol=1e-6)
