from __future__ import annotations

import numpy as np
import pytest

from conf.schema import Severity, SplitKind
from ranking.lint.findings import Worth
from ranking.lint.linter import CHECKS, as_result, quick_lint
from ranking.lint.worth import Yardstick
from tests.ranking.lint.shop import clean_shop, measured


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_clean_shop_has_nothing_above_a_note(seed: int) -> None:
    material = clean_shop(seed=seed).material()
    assert [(f.check, f.title) for f in measured(material) if f.severity > Severity.note] == []
    assert quick_lint(material) == []


def test_leave_one_out_of_a_clean_shop_has_its_own_leak_alone() -> None:
    findings = measured(clean_shop().material(SplitKind.leave_one_out))
    assert {f.check for f in findings if f.severity > Severity.note} <= {"later_events_of_others"}


def test_a_result_lists_every_check_and_counts_by_severity() -> None:
    material = clean_shop().material(SplitKind.leave_one_out)
    findings = measured(material)
    result = as_result(findings, material, None)
    assert len(result["checks"]) == len(CHECKS) == len(set(result["checks"]))
    assert sum(result["counts"].values()) == len(findings) == len(result["findings"])
    assert not result["measured"]


@pytest.mark.parametrize(
    ("as_is", "without", "low", "severity"),
    [
        (0.33, 0.30, 0.01, Severity.serious),
        (0.329, 0.30, 0.01, Severity.warning),
        (0.302, 0.30, 0.001, Severity.note),
        (0.33, 0.30, 0.0, Severity.note),
        (0.30, 0.33, -0.05, Severity.note),
        (0.10, 0.0, 0.05, Severity.serious),
    ],
)
def test_the_worth_decides_the_severity(as_is: float, without: float, low: float, severity: Severity) -> None:
    assert Worth("model", as_is, without, low, as_is - without + 0.02, 100).inflates is severity


def test_the_interval_of_left_out_targets_is_that_of_the_difference_of_both_means() -> None:
    """Against a bootstrap of both means over the same queries."""
    material = clean_shop().material(SplitKind.leave_one_out)
    yardstick = Yardstick(material, 0, 0, 2000)
    values = yardstick.plain.values
    left_out = np.random.default_rng(5).random(len(values)) < 0.3
    worth = yardstick.of_targets("", lambda _: left_out)
    assert worth is not None
    assert worth.as_is == pytest.approx(values.mean())
    assert worth.without == pytest.approx(values[~left_out].mean())
    drawn = np.random.default_rng(6).integers(len(values), size=(4000, len(values)))
    differences = [values[d].mean() - values[d][~left_out[d]].mean() for d in drawn]
    low, high = np.quantile(differences, [0.025, 0.975])
    assert worth.low == pytest.approx(low, abs=0.005)
    assert worth.high == pytest.approx(high, abs=0.005)
    assert yardstick.of_targets("", lambda _: np.zeros(len(values), dtype=np.bool_)) is None
    assert yardstick.of_targets("", lambda _: np.ones(len(values), dtype=np.bool_)) is None
