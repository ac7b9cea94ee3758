from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import ttest_ind

from lifecycle.experiments.boundaries import Boundary
from lifecycle.experiments.estimates import Effect, Sample, effect


def found(arm: Sample, control: Sample) -> Effect:
    result = effect(arm, control)
    assert result is not None
    return result


def test_a_mean_is_welchs_t_test() -> None:
    random = np.random.default_rng(0)
    ours, theirs = random.lognormal(0.2, 1.0, 300), random.lognormal(0.0, 1.5, 120)
    mine = found(Sample(ours), Sample(theirs))
    reference = ttest_ind(ours, theirs, equal_var=False)
    boundary = Boundary("fixed", 0.05, 0.05)
    interval = reference.confidence_interval(0.95)
    reach = boundary.reach(mine.lift_error, mine.freedom)
    assert reach is not None
    assert mine.freedom == pytest.approx(reference.df)
    assert boundary.p_value(mine.difference / mine.error, None, mine.freedom) == pytest.approx(
        reference.pvalue
    )
    assert mine.difference - reach * mine.error == pytest.approx(interval.low)
    assert mine.difference + reach * mine.error == pytest.approx(interval.high)
    assert mine.reduction is None


def test_by_hand_two_against_two() -> None:
    # means 3 and 2, variances 2 and 2: error sqrt(2/2 + 2/2); lift 3/2 - 1, by the delta method
    # var = (2/2) / 2^2 + (3/2^2)^2 (2/2) = 0.25 + 0.5625
    mine = found(Sample(np.array([2.0, 4.0])), Sample(np.array([1.0, 3.0])))
    assert (mine.value, mine.control, mine.difference) == (3.0, 2.0, 1.0)
    assert mine.error == pytest.approx(2**0.5)
    assert mine.lift == pytest.approx(0.5)
    assert mine.lift_error == pytest.approx(0.8125**0.5)
    assert mine.freedom == pytest.approx(2.0)


def ratio_sample(random: np.random.Generator, units: int, rate: float) -> Sample:
    shown = random.geometric(0.05, units).astype(np.float64)
    own = random.beta(20 * rate, 20 * (1 - rate), units)
    return Sample(random.binomial(shown.astype(np.int64), own).astype(np.float64), shown)


def test_the_delta_method_has_the_errors_of_a_bootstrap_of_units() -> None:
    random = np.random.default_rng(1)
    arm, control = ratio_sample(random, 900, 0.12), ratio_sample(random, 1100, 0.10)
    mine = found(arm, control)
    differences, lifts = [], []
    for _ in range(3000):
        values = []
        for side in (arm, control):
            drawn = random.integers(0, side.units, side.units)
            assert side.bottom is not None
            values.append(side.top[drawn].sum() / side.bottom[drawn].sum())
        differences.append(values[0] - values[1])
        lifts.append(values[0] / values[1] - 1)
    assert mine.value == pytest.approx(arm.value)
    assert mine.error == pytest.approx(np.std(differences), rel=0.06)
    assert mine.lift_error == pytest.approx(np.std(lifts), rel=0.06)
    naive = np.sqrt(sum(s.value * (1 - s.value) / s.bottom.sum() for s in (arm, control)))  # type: ignore[operator, union-attr]
    assert mine.error > 1.5 * naive  # impressions of a unit are not independent


def test_cuped_is_the_regression_with_the_covariates() -> None:
    random = np.random.default_rng(2)
    before = random.lognormal(0, 1, (800, 2))
    arm = random.random(800) < 0.4
    y = 1.5 * before[:, 0] - 0.3 * before[:, 1] + 0.5 * arm + random.normal(0, 1, 800)
    mine = found(Sample(y[arm], None, before[arm]), Sample(y[~arm], None, before[~arm]))
    fit = sm.OLS(y, np.column_stack((np.ones(800), arm, before))).fit()
    assert mine.difference == pytest.approx(fit.params[1])
    assert mine.error == pytest.approx(np.sqrt(fit.get_robustcov_results("HC1").cov_params()[1, 1]), rel=0.02)
    plain = found(Sample(y[arm]), Sample(y[~arm]))
    assert mine.reduction == pytest.approx(1 - (mine.error / plain.error) ** 2)
    assert mine.reduction is not None
    assert mine.reduction > 0.6
    assert mine.lift == pytest.approx(mine.value / mine.control - 1)


def test_the_error_of_an_adjusted_lift_is_that_of_a_bootstrap() -> None:
    random = np.random.default_rng(3)
    count = 600

    def draw(scale: float) -> tuple[np.ndarray, np.ndarray]:
        before = random.lognormal(0, 0.7, (count, 1))
        return scale * before[:, 0] * random.lognormal(0, 0.4, count), before

    ours, theirs = draw(1.2), draw(1.0)
    mine = found(Sample(ours[0], None, ours[1]), Sample(theirs[0], None, theirs[1]))
    lifts = []
    for _ in range(800):
        one, two = random.integers(0, count, count), random.integers(0, count, count)
        lifts.append(
            found(Sample(ours[0][one], None, ours[1][one]), Sample(theirs[0][two], None, theirs[1][two])).lift
        )
    assert mine.lift_error == pytest.approx(np.std(lifts), rel=0.12)  # type: ignore[arg-type]


def test_covariates_that_do_not_vary_change_nothing() -> None:
    random = np.random.default_rng(4)
    ours, theirs = random.normal(1, 1, 200), random.normal(1, 1, 200)
    zeros = np.zeros((200, 3))
    assert found(Sample(ours, None, zeros), Sample(theirs, None, zeros)) == found(
        Sample(ours), Sample(theirs)
    )


def test_too_few_units_are_no_effect_and_zero_variance_no_error() -> None:
    none = np.zeros(0)
    assert effect(Sample(none), Sample(np.ones(5))) is None
    assert effect(Sample(np.ones(1)), Sample(np.ones(5))) is None
    assert effect(Sample(np.ones(3), np.zeros(3)), Sample(np.ones(3), np.ones(3))) is None
    same = found(Sample(np.ones(4)), Sample(np.ones(4)))
    assert (same.difference, same.error, same.lift, same.lift_error) == (0.0, 0.0, 0.0, 0.0)
    shown = np.array([5.0, 10.0, 35.0])
    alike = found(Sample(0.2 * shown, shown), Sample(0.2 * shown, shown))  # 0.2 each, but for rounding
    assert (alike.error, alike.lift_error) == (0.0, 0.0)
    nothing = found(Sample(np.ones(4)), Sample(np.zeros(4)))
    assert (nothing.lift, nothing.lift_error) == (None, None)
