"""Drift of features and scores between two models, and what no training explains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conf.drift import ChecksConfig
from lifecycle.checks.check import Check, Outcome
from lifecycle.checks.models import ModelSample, check_models

LIMITS = ChecksConfig()
SERVED = ModelSample(
    {"user_score": np.linspace(0.0, 1.0, 500), "price": np.linspace(1.0, 9.0, 500), "off": np.zeros(500)},
    np.linspace(-3.0, 2.0, 500),
)


def judged(new: ModelSample, limits: ChecksConfig = LIMITS) -> dict[str, Check]:
    return {check.name: check for check in check_models(SERVED, new, limits)}


def refused(found: dict[str, Check]) -> set[str]:
    return {name for name, check in found.items() if check.outcome is Outcome.refused}


def test_the_same_model_does_not_drift() -> None:
    found = judged(SERVED)
    assert {name: check.value for name, check in found.items()} == {
        "features_dead": 0.0, "features.user_score": 0.0, "features.price": 0.0, "scores": 0.0
    }  # fmt: skip
    assert {check.outcome for check in found.values()} == {Outcome.passed}


def test_a_feature_that_drifts_is_named_and_warns() -> None:
    pence = replace(SERVED, features={**SERVED.features, "price": SERVED.features["price"] * 100})
    found = judged(pence)
    assert refused(found) == set()
    assert {name for name, check in found.items() if check.outcome is Outcome.warned} == {"features.price"}
    line = found["features.price"].line
    assert line.startswith("feature price: PSI ")
    assert "median 500; normal is median 5, as of the served model" in line


def test_a_small_drift_passes() -> None:
    moved = replace(SERVED, scores=SERVED.scores + 0.05)
    check = judged(moved)["scores"]
    assert check.value == pytest.approx(0.002, abs=0.001)
    assert check.outcome is Outcome.passed


def test_a_feature_that_has_become_constant_is_refused() -> None:
    lost = replace(SERVED, features={**SERVED.features, "price": np.zeros(500)})
    found = judged(lost)
    assert (found["features_dead"].value, found["features_dead"].outcome) == (1.0, Outcome.refused)
    assert found["features_dead"].line.startswith("1 of 3 features are the same for every candidate")
    assert "(e.g. price)" in found["features_dead"].line


@pytest.mark.parametrize(
    ("scores", "words"),
    [(np.full(500, np.nan), "100.0% of the scores are no numbers"), (np.zeros(500), "all the same")],
)
def test_scores_that_say_nothing_are_refused(scores: np.ndarray, words: str) -> None:
    found = judged(replace(SERVED, scores=scores))
    assert refused(found) == {"scores"}
    assert words in found["scores"].line


def test_features_that_one_model_lacks_are_not_compared() -> None:
    other = replace(SERVED, features={"user_score": SERVED.features["user_score"], "new": np.ones(500)})
    assert set(judged(other)) == {"features_dead", "features.user_score", "scores"}


def test_too_few_candidates_are_not_judged() -> None:
    few = ModelSample({}, np.zeros(3))
    assert [check.outcome for check in check_models(few, few, LIMITS)] == [Outcome.not_judged]
