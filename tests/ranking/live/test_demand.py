"""Demand counted on from a bundle's: windows by hand, and against counting everything again."""

from __future__ import annotations

import numpy as np
import pytest

from features.data.dataset import FloatArray, IntArray
from features.data.demand import DAY, SPANS, Demand, demand_names
from ranking.live.demand import LiveDemand
from tests.synthetic import make_dataset

MONDAY = 17_000 * DAY
NAMES = demand_names()


def base_of(*events: tuple[int, int]) -> Demand:
    """Demand for three items from events (item, day)."""
    rows = [(f"u{n}", f"i{item}", "purchase", MONDAY + day * DAY) for n, (item, day) in enumerate(events)]
    data = make_dataset(rows, [f"i{n}" for n in range(3)])
    return Demand.of(data.events, lambda: [np.arange(len(data.events))], 3)


def columns(live: LiveDemand, rows: IntArray, items: int = 5) -> FloatArray:
    present = np.full((items, len(NAMES)), np.nan, dtype=np.float32)
    live.put(rows, present)
    return present[rows]


def counts(live: LiveDemand, row: int) -> dict[str, float]:
    values = columns(live, np.array([row], np.int32))[0].tolist()
    return {
        name: value if name in ("trend", "is_new") else float(np.round(np.expm1(value), 3))
        for name, value in zip(NAMES, values, strict=True)
    }


def add(live: LiveDemand, *events: tuple[int, int]) -> None:
    live.add(np.array([e[0] for e in events], np.int32), np.array([e[1] for e in events], np.int64))


def test_without_events_it_is_what_the_bundle_says() -> None:
    base = base_of((0, 0), (0, 5), (1, 6), (1, 6))
    found = columns(LiveDemand(base, 3), np.arange(3, dtype=np.int32), 3)
    assert found == pytest.approx(base.present, abs=1e-6)


def test_the_running_day_counts_on_top_of_the_bundles_last_days() -> None:
    live = LiveDemand(base_of((0, 0), (0, 5), (1, 6)), 5)
    add(live, (0, 0), (0, 0), (3, 0))
    zero = counts(live, 0)
    assert (zero["log_sold"], zero["log_sold_7"], zero["log_days_on_sale"], zero["is_new"]) == (4, 4, 7, 0)
    assert zero["trend"] == pytest.approx(np.log(17 / 5), abs=1e-6)
    three = counts(live, 3)
    assert (three["log_sold"], three["log_sold_7"], three["log_days_on_sale"]) == (1, 1, 1)
    assert (counts(live, 2)["is_new"], counts(live, 2)["log_sold"]) == (1, 0)


def test_after_a_week_of_recording_its_window_holds_nothing_else() -> None:
    live = LiveDemand(base_of((0, 0), (0, 5), (0, 6), (1, 6)), 5)
    add(live, (0, 0), (1, 3))
    # day 5 of the bundle is 2 days before the first day of recording, day 6 is 1 day before it
    assert [(counts(live, 0)["log_sold_7"], live.today)] == [(3, 3)]
    add(live, (1, 5))
    assert counts(live, 0)["log_sold_7"] == 3
    add(live, (1, 6))
    assert counts(live, 0)["log_sold_7"] == 2
    add(live, (1, 7))
    zero, one = counts(live, 0), counts(live, 1)
    assert (zero["log_sold_7"], zero["log_sold"], zero["log_sold_28"]) == (1, 4, 4)
    assert (one["log_sold_7"], one["log_sold_28"], one["log_days_on_sale"]) == (4, 5, 8)
    add(live, (2, 8))
    assert counts(live, 0)["log_sold_7"] == 0


def test_late_events_count_on_their_days() -> None:
    live = LiveDemand(base_of((0, 0)), 5)
    add(live, (1, 9), (1, 2), (1, 9), (1, 5), (1, 2), (1, 0))
    found = counts(live, 1)
    assert (found["log_sold"], found["log_sold_7"], found["log_days_on_sale"]) == (6, 5, 9)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_as_if_everything_were_counted_again(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ranking.live.demand._PAIRS", 16)  # memory grows and old pairs are dropped
    rng = np.random.default_rng(seed)
    base_days = 30
    base_events = [(int(rng.integers(2)), int(rng.integers(base_days))) for _ in range(40)]
    base_events += [(0, 0), (2, base_days - 1)]
    live = LiveDemand(base_of(*base_events), 5)
    every = [(item, day - base_days) for item, day in base_events]
    today = 0
    for _ in range(120):
        today += int(rng.integers(0, 9))
        batch = [(int(rng.integers(5)), max(today - int(rng.integers(4)), 0)) for _ in range(6)]
        add(live, *batch)
        every += batch
        today = live.today
        found = np.expm1(columns(live, np.arange(5, dtype=np.int32))[:, : 1 + len(SPANS)])
        for row in range(5):
            days = [day for item, day in every if item == row]
            expected = [len(days), *(sum(day >= today - span for day in days) for span in SPANS)]
            assert np.round(found[row]).tolist() == expected
