"""The guards of a watch: few calls break nothing, many do, and clicks are judged by users."""

from __future__ import annotations

import numpy as np
import pytest

from conf.lifecycle import WatchConfig
from lifecycle.retrain.watch.clicks import ClickSums, loss_statistic
from lifecycle.retrain.watch.guards import click_guard, metric_guards
from lifecycle.retrain.watch.metrics import Scrape

LIMITS = WatchConfig(seconds=60, min_calls=100, min_impressions=500)


def served(ok: int, failed: int = 0, degraded: int = 0, fast: float = 1.0) -> Scrape:
    """Return counters of calls, of which a share took at most 10 ms and the others up to 50 ms."""
    calls = ok + failed
    buckets = {"0.01": fast * calls, "0.05": float(calls), "+Inf": float(calls)}
    return Scrape(
        {"OK": ok, "INTERNAL": failed}, {"Recommend": buckets},
        {"none": calls - degraded, "popularity": degraded},
    )  # fmt: skip


def outcomes(before: Scrape, after: Scrape, last: bool = True) -> dict[str, str]:
    return {guard["name"]: guard["outcome"] for guard in metric_guards(before, after, LIMITS, last=last)}


GOOD = {"errors": "held", "degradation": "held", "latency of Recommend": "held"}


def test_what_is_as_before_holds_and_too_little_is_not_judged() -> None:
    assert outcomes(served(5000, 10), served(1000, 2)) == GOOD
    assert outcomes(served(5000), served(50)) == {
        "errors": "not_judged", "degradation": "not_judged", "latency": "not_judged",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("failed", "last", "outcome"),
    [
        (12, True, "held"),  # 1.2 %, which 1 % gives in 30 of 100 periods
        (17, True, "broken"),  # p = .03
        (17, False, "held"),  # an early look needs p < .001
        (25, False, "broken"),
    ],
)
def test_errors_break_their_guard_by_the_exact_binomial_test(failed: int, last: bool, outcome: str) -> None:
    assert outcomes(served(5000), served(1000 - failed, failed), last)["errors"] == outcome


def test_a_shop_with_more_errors_before_is_not_held_to_less() -> None:
    assert outcomes(served(4750, 250), served(960, 40))["errors"] == "held"


def test_lists_that_are_degraded_more_often_break_their_guard() -> None:
    before = served(5000, degraded=1000)  # 20 %, as unknown visitors get
    assert outcomes(before, served(1000, degraded=310))["degradation"] == "held"
    assert outcomes(before, served(1000, degraded=400))["degradation"] == "broken"


def test_a_slower_percentile_breaks_its_guard() -> None:
    before = served(5000)  # every call within 10 ms: p99 is 9.9 ms, and its double 19.8 ms
    assert outcomes(before, served(1000, fast=0.5)) == {**GOOD, "latency of Recommend": "held"}, (
        "within a bucket"
    )
    slow = Scrape({"OK": 1000}, {"Recommend": {"0.01": 900.0, "0.05": 970.0, "+Inf": 1000.0}}, {"none": 1000})
    assert outcomes(before, slow)["latency of Recommend"] == "broken"


def test_the_variance_of_a_click_rate_is_that_of_a_bootstrap_over_users() -> None:
    rng = np.random.default_rng(0)
    shown = rng.integers(1, 40, size=400)
    clicked = rng.binomial(shown, rng.beta(1, 9, size=400))
    sums = ClickSums()
    for x, y in zip(shown.tolist(), clicked.tolist(), strict=True):
        sums.add(x, y)
    chosen = rng.integers(0, 400, size=(4000, 400))
    resampled = clicked[chosen].sum(axis=1) / shown[chosen].sum(axis=1)
    assert sums.rate == pytest.approx(clicked.sum() / shown.sum())
    assert np.sqrt(sums.variance) == pytest.approx(resampled.std(), rel=0.05)
    independent = np.sqrt(sums.rate * (1 - sums.rate) / shown.sum())
    assert np.sqrt(sums.variance) > 1.5 * independent, "users differ, and impressions are not independent"


def clicks(rate: float, users: int = 1000) -> ClickSums:
    sums = ClickSums()
    for user in range(users):
        sums.add(10, int(10 * rate) + (user / users < round(10 * rate % 1, 6)))
    return sums


def test_a_loss_of_clicks_beyond_the_limit_breaks_its_guard() -> None:
    assert click_guard(clicks(0.15), clicks(0.15), LIMITS)["outcome"] == "held"
    assert click_guard(clicks(0.15), clicks(0.14), LIMITS)["outcome"] == "held", "a loss of 7 %"
    broken = click_guard(clicks(0.15), clicks(0.11), LIMITS)
    assert broken["outcome"] == "broken"
    assert broken["line"] == (
        "broken: 11.00% of 10,000 impressions were clicked, before 15.00% of 10,000 (limit 13.50%)"
    )
    assert click_guard(clicks(0.15), clicks(0.0, users=40), LIMITS)["outcome"] == "not_judged"


def test_the_statistic_is_zero_where_the_loss_is_the_limit() -> None:
    assert loss_statistic(clicks(0.2), clicks(0.18), 0.1) == pytest.approx(0.0, abs=1e-9)
    assert loss_statistic(clicks(0.2), clicks(0.2), 0.1) > 0


def test_users_who_all_click_on_the_same_share_have_no_variance() -> None:
    sums = ClickSums()
    for clicked in (1, 2, 5):
        sums.add(10 * clicked, clicked)
    assert sums.variance == 0.0, "not a rounding error below 0"
    assert loss_statistic(sums, sums, 0.1) == float("inf")
