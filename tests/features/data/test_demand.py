from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.data import demand as demand_module
from features.data.dataset import FloatArray
from features.data.demand import SPANS, Demand, demand_names
from tests.synthetic import DAY, START, described, make_dataset

MIDNIGHT = START - START % DAY
"""The start of day 0."""


def demand_of(*sold: tuple[str, int], items: str = "abc") -> Demand:
    """Demand for items that were sold in the middle of days."""
    rows = [("u", item, "purchase", MIDNIGHT + day * DAY + DAY // 2) for item, day in sold]
    data = make_dataset(sorted(rows, key=lambda row: row[3]), list(items))
    return Demand.of(data.events, lambda: [np.arange(len(data.events))], len(items))


def at(demand: Demand, moment: int, row: int = 0) -> dict[str, float]:
    """Return column name -> value of one item at seconds after day 0 began."""
    values = described(demand, np.array([[row]], np.int32), np.array([MIDNIGHT + moment]))[0, 0]
    assert values.dtype == np.float32
    return dict(zip(demand_names(), values.tolist(), strict=True))


def counts(demand: Demand, moment: int, row: int = 0) -> list[int]:
    """Return events before a moment: all of them, then by span."""
    found = at(demand, moment, row)
    return [round(np.expm1(found[name])) for name in ("log_sold", *(f"log_sold_{s}" for s in SPANS))]


def test_names_say_how_far_the_windows_reach() -> None:
    assert SPANS == (7, 28, 90, 365)
    assert demand_names() == [
        "log_sold", "log_sold_7", "log_sold_28", "log_sold_90", "log_sold_365", "log_days_on_sale", "trend",
        "is_new",
    ]  # fmt: skip


def test_windows_by_hand() -> None:
    """A window of n days holds the n days before the query's own, on both of its borders."""
    ages = (1, 7, 7, 8, 28, 29, 90, 91, 365, 366)
    demand = demand_of(*(("b", 400 - age) for age in ages), ("a", 400 - 30), ("c", 600))
    now = 400 * DAY + 60
    assert counts(demand, now, row=1) == [10, 3, 5, 7, 9]
    assert counts(demand, now, row=0) == [1, 0, 0, 1, 1]
    assert counts(demand, now, row=2) == [0, 0, 0, 0, 0]
    found = at(demand, now, row=1)
    assert found["log_days_on_sale"] == pytest.approx(np.log1p(366))
    # Four weeks like the last would have been 12 events; there were 5.
    assert found["trend"] == pytest.approx(np.log(13 / 6))
    assert found["is_new"] == 0.0
    unsold = at(demand, now, row=2)
    assert unsold.pop("is_new") == 1.0
    assert set(unsold.values()) == {0.0}


def test_only_the_days_before_the_day_of_the_query_count() -> None:
    demand = demand_of(("a", 10), ("a", 20))
    for hour in (0, 13, 24 - 1 / 3600):
        moment = 10 * DAY + int(hour * 3600)
        assert counts(demand, moment)[0] == 0, "neither an hour before nor an hour after the event"
        assert at(demand, moment)["is_new"] == 1.0
        assert at(demand, moment)["log_days_on_sale"] == 0.0
    assert counts(demand, 11 * DAY)[:2] == [1, 1]
    assert at(demand, 11 * DAY)["log_days_on_sale"] == pytest.approx(np.log(2))
    assert counts(demand, 20 * DAY + DAY - 1) == [1, 0, 1, 1, 1], "the second event is of this day"
    assert counts(demand, 21 * DAY) == [2, 1, 2, 2, 2]


def test_nothing_is_known_before_the_first_event() -> None:
    demand = demand_of(("a", 10), ("b", 11))
    for moment in (9 * DAY, 0, -MIDNIGHT):
        assert at(demand, moment) == {name: float(name == "is_new") for name in demand_names()}, moment


def test_a_moment_after_the_last_event_is_the_day_after_it() -> None:
    demand = demand_of(("a", 0), ("a", 9), ("b", 10))
    following = at(demand, 11 * DAY)
    assert following["log_days_on_sale"] == pytest.approx(np.log1p(11))
    for later in (12, 100, 5_000):
        assert at(demand, later * DAY + 5) == following, "demand stays what it was when the data ended"
    assert counts(demand, 5_000 * DAY) == [2, 1, 2, 2, 2]


def test_neighbouring_items_do_not_leak_into_each_other() -> None:
    """Days of all items lie in one sorted array, the last of one item beside the first of the next."""
    demand = demand_of(("a", 10), ("b", 0), ("b", 10), ("c", 0))
    for day, expected in ((1, [0, 1, 1]), (10, [0, 1, 1]), (11, [1, 2, 1])):
        assert [counts(demand, day * DAY, row)[0] for row in range(3)] == expected, day
        assert [counts(demand, day * DAY, row)[4] for row in range(3)] == expected, day


def naive(times: list[list[int]], row: int, now: int) -> FloatArray:
    """Count one event at a time."""
    last = max((t for own in times for t in own), default=None)
    today = now // DAY if last is None else min(now // DAY, last // DAY + 1)
    days = [t // DAY for t in times[row] if t // DAY < today]
    spans = [sum(day >= today - span for day in days) for span in SPANS]
    age = today - min(days) if days else 0
    logs = np.log1p([len(days), *spans, age])
    trend = np.log1p(4 * spans[0]) - np.log1p(spans[1])
    return np.array([*logs, trend, not days], np.float32)


moments = st.integers(MIDNIGHT - 400 * DAY, MIDNIGHT + 400 * DAY)


@settings(max_examples=100, deadline=None)
@given(
    times=st.lists(st.lists(moments, max_size=6), min_size=1, max_size=4),
    queries=st.lists(st.integers(0, MIDNIGHT + 900 * DAY) | moments, min_size=1, max_size=4),
)
def test_features_are_the_naive_counts(times: list[list[int]], queries: list[int]) -> None:
    ids = [f"i{n}" for n in range(len(times))]
    rows = [("u", ids[n], "purchase", time) for n, own in enumerate(times) for time in own]
    data = make_dataset(rows, ids)
    demand = Demand.of(data.events, lambda: [np.arange(len(rows))], len(ids))
    every = np.tile(np.arange(len(ids), dtype=np.int32), (len(queries), 1))
    found = described(demand, every, np.array(queries))
    assert found.shape == (len(queries), len(ids), len(demand_names()))
    for query, now in enumerate(queries):
        for row in range(len(ids)):
            np.testing.assert_allclose(found[query, row], naive(times, row, now), rtol=1e-6, atol=1e-6)


def test_what_a_server_asks_for_equals_the_general_path() -> None:
    rng = np.random.default_rng(0)
    demand = demand_of(*((str(rng.choice(list("abc"))), int(rng.integers(200))) for _ in range(80)))
    rows = np.array([[2, 0, 1, 1], [0, 1, 2, 2]], np.int32)
    end = MIDNIGHT + 1_000 * DAY
    together = described(demand, rows, np.array([end, end]))
    assert np.array_equal(together, demand.present[rows])
    # A query of the past in the same block makes the present one go the general way.
    mixed = described(demand, rows, np.array([end, MIDNIGHT + 100 * DAY]))
    assert np.array_equal(mixed[0], together[0])
    assert not np.array_equal(mixed[1], together[1])
    assert np.array_equal(mixed[1], described(demand, rows[1:], np.array([MIDNIGHT + 100 * DAY]))[0])


def test_a_planted_future_event_changes_nothing_for_earlier_queries() -> None:
    sold = [("a", 0), ("a", 5), ("b", 5), ("b", 9)]
    rows = np.array([[0, 1, 2]] * 4, np.int32)
    asked = MIDNIGHT + DAY * np.array([1, 5, 9, 10])
    before = described(demand_of(*sold), rows, asked)
    for planted in (("a", 10), ("c", 10), ("c", 3_000)):
        assert np.array_equal(described(demand_of(*sold, planted), rows, asked), before), planted
    changed = described(demand_of(*sold, ("c", 10)), rows, asked + DAY)
    assert not np.array_equal(changed[3], described(demand_of(*sold), rows, asked + DAY)[3])


def test_only_the_given_positions_are_counted() -> None:
    rows = [("u", "a", "purchase", MIDNIGHT + day * DAY) for day in range(10)]
    data = make_dataset(rows, ["a"])
    demand = Demand.of(data.events, lambda: [np.array([2, 3, 5])], 1)
    assert counts(demand, 5 * DAY)[0] == 2
    assert counts(demand, 400 * DAY)[0] == 3
    assert at(demand, 400 * DAY)["log_days_on_sale"] == pytest.approx(np.log1p(6 - 2))


def test_a_large_catalogue_is_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with a day far from all others, which takes no memory for the days between."""
    rng = np.random.default_rng(0)
    ids = [f"i{n}" for n in range(20)]
    rows = [
        ("u", ids[rng.integers(18)], "purchase", MIDNIGHT + int(rng.integers(40 * DAY))) for _ in range(300)
    ]
    data = make_dataset([*rows, ("u", "i3", "purchase", 0)], ids)
    blocks = [np.arange(0, 150), np.arange(150, 301), np.arange(0)]
    whole = Demand.of(data.events, lambda: blocks, 20)
    assert whole.calendar.tolist() == [0, MIDNIGHT // DAY + 41]
    assert whole.totals[-1] == 301
    monkeypatch.setattr(demand_module, "_CELLS", 41 * 3)
    parts = Demand.of(data.events, lambda: blocks, 20)
    for name in ("keys", "totals", "calendar", "first"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
        assert getattr(parts, name).dtype == np.int64


@pytest.mark.parametrize("now", [0, START, -5 * DAY])
def test_without_events_every_item_is_new(now: int) -> None:
    demand = demand_of()
    found = described(demand, np.array([[0, 2]], np.int32), np.array([now]))
    assert found.tolist() == [[[0.0] * 7 + [1.0]] * 2]
    assert demand.present.shape == (3, 8)


def test_no_queries_and_no_candidates_have_no_features() -> None:
    demand = demand_of(("a", 0))
    assert described(demand, np.zeros((0, 4), np.int32), np.zeros(0, np.int64)).shape == (0, 4, 8)
    assert described(demand, np.zeros((2, 0), np.int32), np.array([START, MIDNIGHT])).shape == (2, 0, 8)


def test_without_timestamps_every_event_lies_on_one_day() -> None:
    """All times are 0: whatever is asked for on any later day knows every event, and no day is missing."""
    data = make_dataset([("u", i, "purchase", 9) for i in "aab"], list("abc"), has_time=False)
    demand = Demand.of(data.events, lambda: [np.arange(3)], 3)
    expected = np.log1p([[2] * 5 + [1], [1] * 5 + [1], [0] * 6])
    for now in (DAY, START):
        found = described(demand, np.array([[0, 1, 2]], np.int32), np.array([now]))[0]
        np.testing.assert_allclose(found[:, :6], expected, rtol=1e-6)
        assert found[:, 7].tolist() == [0.0, 0.0, 1.0]
