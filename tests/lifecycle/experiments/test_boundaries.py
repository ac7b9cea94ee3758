from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from lifecycle.experiments.boundaries import Boundary, corrected, units_needed

SEQUENTIAL = Boundary("sequential", 0.05, 0.05)
FIXED = Boundary("fixed", 0.05, 0.05)


def test_the_reach_by_hand() -> None:
    # lift error 5 %, tau 5 %: ratio 1, sqrt(2 (2 log 20 + log 2)) = sqrt(13.3692)
    assert SEQUENTIAL.reach(0.05, 100) == pytest.approx(13.36922**0.5, rel=1e-6)
    assert FIXED.reach(None, 1e9) == pytest.approx(1.959964)
    assert SEQUENTIAL.reach(0.0, 100) is None
    assert SEQUENTIAL.reach(None, 100) is None


@pytest.mark.parametrize("error", [0.5, 0.05, 0.01])
@pytest.mark.parametrize("boundary", [SEQUENTIAL, FIXED])
def test_p_is_alpha_at_the_end_of_the_interval(boundary: Boundary, error: float) -> None:
    reach = boundary.reach(error, 50)
    assert reach is not None
    assert boundary.p_value(reach, error, 50) == pytest.approx(0.05)
    assert boundary.p_value(0.0, error, 50) == 1.0


def test_random_walks_cross_the_sequential_boundary_in_at_most_five_of_a_hundred() -> None:
    random = np.random.default_rng(0)
    steps = np.arange(1, 501)
    walks = random.normal(0, 1, (2000, 500)).cumsum(axis=1) / np.sqrt(steps)
    errors = 1 / np.sqrt(steps)  # of a lift whose error is 1 after the first look
    reach = [Boundary("sequential", 0.05, 0.1).reach(error, np.inf) for error in errors]
    crossed = (np.abs(walks) > np.array(reach)).any(axis=1).mean()
    naive = (np.abs(walks) > 1.96).any(axis=1).mean()
    assert crossed <= 0.05
    assert naive > 0.4


def test_units_of_a_fixed_horizon_are_the_textbooks() -> None:
    # error 2 % with 1,000 and 1,000: sigma² = 0.02² / (2 / 1000); n = 2 sigma² (1.96 + 0.8416)² / 0.05²
    each = 2 * 0.2 * (norm.ppf(0.975) + norm.ppf(0.8)) ** 2 / 0.05**2
    assert units_needed(FIXED, 0.02, (1000, 1000), 0.8, 0.05) == pytest.approx(2 * each, rel=0.001)
    uneven = units_needed(FIXED, 0.02, (100, 1900), 0.8, 0.05)
    assert uneven == pytest.approx(2000 * 0.02**2 * 7.849 / 0.05**2, rel=0.001)


def test_units_of_a_sequential_test_find_the_effect_with_the_power() -> None:
    needed = units_needed(SEQUENTIAL, 0.02, (1000, 1000), 0.8, 0.05)
    error = 0.02 * (2000 / needed) ** 0.5
    reach = SEQUENTIAL.reach(error, np.inf)
    assert reach is not None
    assert norm.sf(reach - 0.05 / error) == pytest.approx(0.8, abs=0.002)
    assert needed > units_needed(FIXED, 0.02, (1000, 1000), 0.8, 0.05)


@pytest.mark.parametrize("decision", ["sequential", "fixed"])
@pytest.mark.parametrize(
    ("effect", "error", "low", "high"),
    # two units find what is 100 errors away; (2 (1.96 + .84) / 1e-6)² units of error 1 an effect of 1e-6
    [(10.0, 0.05, 1, 2), (0.05, 1e-4, 1, 2), (1e-6, 1.4, 3e13, 1e17)],
)
def test_units_of_very_large_and_very_small_effects(
    decision: str, effect: float, error: float, low: float, high: float
) -> None:
    assert low <= units_needed(Boundary(decision, 0.05, effect), error, (200, 200), 0.8, effect) <= high


def test_corrections_by_hand() -> None:
    assert corrected([0.01, None, 0.04, 0.03], "holm") == pytest.approx([0.03, None, 0.06, 0.06])
    assert corrected([0.01, None, 0.04, 0.03], "bh") == pytest.approx([0.03, None, 0.04, 0.04])
    assert corrected([None], "holm") == [None]
