from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from ranking.evaluation import significance
from ranking.evaluation.significance import bootstrap_intervals, minimum_detectable, paired_test


def test_interval_of_a_constant_is_the_constant() -> None:
    low, high = bootstrap_intervals(np.full((7, 2), 0.25), resamples=50)
    assert low.tolist() == high.tolist() == [0.25, 0.25]


def test_interval_matches_the_normal_approximation() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(1.0, 2.0, size=(4000, 1))
    low, high = bootstrap_intervals(values, resamples=2000, seed=1)
    half = 1.96 * values.std() / np.sqrt(4000)
    assert low[0] == pytest.approx(values.mean() - half, abs=0.008)
    assert high[0] == pytest.approx(values.mean() + half, abs=0.008)


def test_interval_narrows_with_level_and_holds_the_mean() -> None:
    values = np.random.default_rng(2).random((300, 3))
    wide_low, wide_high = bootstrap_intervals(values, level=0.99)
    low, high = bootstrap_intervals(values, level=0.5)
    assert (wide_low < low).all()
    assert (high < wide_high).all()
    assert ((low < values.mean(axis=0)) & (values.mean(axis=0) < high)).all()


def test_intervals_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).random((60, 2))
    first = bootstrap_intervals(values, seed=5)
    np.testing.assert_array_equal(first, bootstrap_intervals(values, seed=5))
    assert not np.array_equal(first, bootstrap_intervals(values, seed=6))
    monkeypatch.setattr(significance, "BLOCK_CELLS", 150)  # two resamples at a time
    np.testing.assert_allclose(bootstrap_intervals(values, seed=5), first)


def test_equal_columns_share_resamples() -> None:
    column = np.random.default_rng(1).random(90)
    low, high = bootstrap_intervals(np.stack([column, column], axis=1))
    assert low[0] == low[1]
    assert high[0] == high[1]


def test_interval_of_nothing_is_unknown_and_bad_settings_are_refused() -> None:
    low, high = bootstrap_intervals(np.zeros((0, 2)))
    assert np.isnan(low).all()
    assert np.isnan(high).all()
    with pytest.raises(ValueError, match="resamples"):
        bootstrap_intervals(np.ones((3, 1)), resamples=0)
    with pytest.raises(ValueError, match="level"):
        bootstrap_intervals(np.ones((3, 1)), level=1.0)


def test_t_test_is_scipys() -> None:
    rng = np.random.default_rng(7)
    a, b = rng.random((80, 2)), rng.random((80, 2))
    result = paired_test(a, b, resamples=20, permutations=20)
    expected = [stats.ttest_rel(a[:, i], b[:, i]).pvalue for i in range(2)]
    np.testing.assert_allclose(result.p_value, expected)
    np.testing.assert_allclose(result.difference, (a - b).mean(axis=0))


def test_sign_flips_approach_the_exact_test() -> None:
    # sums over every sign pattern: |sum| >= 1 + 2 + 3 + 6 happens in 2 of 16, >= 10 in 4 of 16
    differences = np.array([[1.0, -1.0], [2.0, 2.0], [3.0, 3.0], [6.0, 6.0]])
    exact = [
        np.mean([abs(np.dot(signs, column)) >= abs(column.sum()) for signs in product([-1, 1], repeat=4)])
        for column in differences.T
    ]
    assert exact == [2 / 16, 4 / 16]
    result = paired_test(differences, np.zeros((4, 2)), resamples=10, permutations=40_000)
    np.testing.assert_allclose(result.p_permutation, exact, atol=0.01)


def test_queries_without_difference_do_not_change_the_sign_flip_test() -> None:
    differences = np.random.default_rng(9).normal(0.3, 1, size=(30, 1))
    padded = np.concatenate([differences, np.zeros((500, 1))])
    alone = paired_test(differences, np.zeros_like(differences), resamples=10)
    among = paired_test(padded, np.zeros_like(padded), resamples=10)
    assert alone.p_permutation[0] == among.p_permutation[0]


def test_equal_systems_differ_by_nothing() -> None:
    values = np.random.default_rng(0).random((25, 1))
    result = paired_test(values, values, resamples=20, permutations=50)
    assert (result.difference[0], result.low[0], result.high[0]) == (0, 0, 0)
    assert (result.p_value[0], result.p_permutation[0]) == (1, 1)


def test_a_constant_shift_is_certain_but_one_query_proves_nothing() -> None:
    values = np.random.default_rng(0).random((25, 1))
    assert paired_test(values + 0.1, values, resamples=20, permutations=50).p_value[0] == 0
    assert paired_test(values[:1] + 0.1, values[:1], resamples=20, permutations=50).p_value[0] == 1


def test_direction_does_not_matter_to_p_and_flips_the_difference() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random((50, 1)), rng.random((50, 1))
    there, back = paired_test(a, b), paired_test(b, a)
    assert there.p_value[0] == pytest.approx(back.p_value[0])
    assert there.p_permutation[0] == pytest.approx(back.p_permutation[0], abs=0.02)
    assert there.difference[0] == pytest.approx(-back.difference[0])
    assert there.low[0] == pytest.approx(-back.high[0])


def test_false_alarms_stay_near_the_level() -> None:
    rng = np.random.default_rng(21)
    a, b = rng.random((60, 400)), rng.random((60, 400))
    result = paired_test(a, b, resamples=10, permutations=500)
    assert 0.02 <= (result.p_value < 0.05).mean() <= 0.08
    assert 0.02 <= (result.p_permutation < 0.05).mean() <= 0.08


def test_unpaired_values_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        paired_test(np.ones((3, 1)), np.ones((4, 1)))


def test_no_queries_prove_nothing() -> None:
    result = paired_test(np.zeros((0, 1)), np.zeros((0, 1)), resamples=5, permutations=5)
    assert np.isnan(result.difference[0])
    assert (result.p_value[0], result.p_permutation[0]) == (1, 1)


def test_the_minimum_detectable_effect_by_hand() -> None:
    # differences of deviation sqrt(8 / 7), eight queries: (1.959964 + 0.841621) * deviation / sqrt(8)
    differences = np.array([1.0, -1.0] * 4)[:, None]
    assert minimum_detectable(differences)[0] == pytest.approx(2.801585 / np.sqrt(7), rel=1e-6)
    assert minimum_detectable(np.full((5, 1), 0.3))[0] == pytest.approx(0, abs=1e-12)
    assert np.isnan(minimum_detectable(np.zeros((1, 2)))).all()
    found = paired_test(differences, np.zeros((8, 1)), resamples=10, permutations=10)
    np.testing.assert_array_equal(found.detectable, minimum_detectable(differences))


def test_a_minimum_detectable_effect_is_detected_four_times_in_five() -> None:
    rng = np.random.default_rng(3)
    effect = 2.801585 / np.sqrt(400)
    draws = rng.normal(effect, 1.0, size=(400, 2000))
    detected = (stats.ttest_1samp(draws, 0.0).pvalue < 0.05).mean()
    assert detected == pytest.approx(0.8, abs=0.03)
    assert minimum_detectable(draws).mean() == pytest.approx(effect, rel=0.01)
