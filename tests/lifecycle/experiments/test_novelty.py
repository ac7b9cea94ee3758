from __future__ import annotations

import numpy as np
import pytest

from lifecycle.experiments.novelty import DayRows, by_day


def rows(rates: list[float], units: int, seed: int) -> DayRows:
    """Each unit is active on each day, with ten impressions and clicks at the day's rate."""
    random = np.random.default_rng(seed)
    unit, day = (part.ravel() for part in np.indices((units, len(rates))))
    clicks = random.binomial(10, np.array(rates)[day]).astype(np.float64)
    return DayRows(unit, day, clicks, np.full(len(unit), 10.0))


def test_effects_and_intervals_of_a_day_by_hand() -> None:
    # 30 of 50 units click once in two impressions: 0.3; control 20: 0.2. Influence (top - r bottom) / 100:
    # (30 * 0.4² + 20 * 0.6²) / 100² = 0.0012 and (20 * 0.6² + 30 * 0.4²) / 100² = 0.0012
    def side(clicked: int) -> DayRows:
        top = np.array([1.0] * clicked + [0.0] * (50 - clicked))
        return DayRows(np.arange(50), np.zeros(50, dtype=np.int64), top, np.full(50, 2.0))

    found = by_day(side(30), side(20), 0.05)
    (day,) = found["days"]
    assert (day["day"], day["units"]) == (0, 100)
    assert day["difference"] == pytest.approx(0.1)
    assert day["high"] - day["difference"] == pytest.approx(1.959964 * 0.0024**0.5)
    assert found["p_value"] is None  # one day has no trend


def test_an_effect_that_fades_has_a_slope_and_a_lasting_one_has_not() -> None:
    control = rows([0.1] * 8, 400, 0)
    fading = by_day(rows([0.2 * 0.7**d + 0.1 for d in range(8)], 400, 1), control, 0.05)
    lasting = by_day(rows([0.15] * 8, 400, 2), control, 0.05)
    assert fading["p_value"] < 0.001
    assert fading["slope"] < 0
    assert fading["days"][0]["difference"] == pytest.approx(0.2, abs=0.02)
    assert lasting["p_value"] > 0.05


def test_the_error_of_the_slope_counts_units_not_days() -> None:
    random = np.random.default_rng(3)
    slopes, errors = [], []
    for _ in range(200):
        sides = []
        for _ in range(2):
            unit, day = (part.ravel() for part in np.indices((100, 5)))
            trend = random.normal(0, 0.3, 100)  # every unit has a trend of its own
            top = trend[unit] * day + random.normal(0, 0.1, len(unit))
            sides.append(DayRows(unit, day, top, np.ones(len(unit))))
        found = by_day(sides[0], sides[1], 0.05)
        slopes.append(found["slope"])
        errors.append(found["slope_error"])
    assert np.mean(errors) == pytest.approx(np.std(slopes), rel=0.12)


def test_days_with_few_units_are_left_out() -> None:
    few = rows([0.1] * 4, 30, 0)
    assert by_day(few, rows([0.1] * 4, 400, 1), 0.05) == {
        "days": [], "slope": None, "slope_error": None, "p_value": None
    }  # fmt: skip
