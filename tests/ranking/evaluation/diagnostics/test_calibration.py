from __future__ import annotations

import numpy as np
import pytest

from ranking.evaluation.diagnostics.calibration import (
    calibration_summary,
    equal_mass_bins,
    reliability,
)


def test_bins_have_equal_mass_and_keep_equal_predictions_together() -> None:
    codes, bins = equal_mass_bins(np.arange(20) / 20, 10)
    assert bins == 10
    assert np.bincount(codes).tolist() == [2] * 10
    codes, bins = equal_mass_bins(np.array([0.1] * 15 + [0.2, 0.3, 0.4, 0.5, 0.6]), 4)
    assert len(set(codes[:15].tolist())) == 1
    assert bins == 2  # the quartiles are .1, .1, .1: all above them are one bin
    assert equal_mass_bins(np.full(5, 0.5), 10)[1] == 1


def test_ece_by_hand() -> None:
    # two bins of five: .2 predicted, one of five chosen; .8 predicted, two of five chosen
    predicted = np.array([0.2] * 5 + [0.8] * 5, dtype=np.float32)
    observed = np.array([1, 0, 0, 0, 0, 1, 1, 0, 0, 0], dtype=np.bool_)
    found = reliability(predicted, observed, np.arange(10), 50, 0, 0.95)
    assert found is not None
    assert found["ece"] == pytest.approx((5 * 0.0 + 5 * 0.4) / 10, abs=1e-6)
    assert found["mean_predicted"] == pytest.approx(0.5)
    assert found["mean_observed"] == pytest.approx(0.3)
    assert [b["pairs"] for b in found["bins"]] == [5, 5]
    assert [b["observed"] for b in found["bins"]] == pytest.approx([0.2, 0.4])
    assert [b["predicted"] for b in found["bins"]] == pytest.approx([0.2, 0.8])
    assert [(b["from"], b["to"]) for b in found["bins"]] == [
        (pytest.approx(0.2), pytest.approx(0.2)),
        (pytest.approx(0.8), pytest.approx(0.8)),
    ]
    for each in found["bins"]:
        assert each["low"] <= each["observed"] <= each["high"]


def test_a_calibrated_model_stays_within_chance_and_a_wrong_one_does_not() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0.02, 0.6, size=5000).astype(np.float32)
    owners = np.repeat(np.arange(500), 10)
    observed = rng.random(5000) < predicted
    half = (predicted / 2).astype(np.float32)
    right = reliability(predicted, observed, owners, 100, 0, 0.95)
    wrong = reliability(half, observed, owners, 100, 0, 0.95)
    assert right is not None
    assert wrong is not None
    assert right["ece"] < right["ece_if_calibrated_high"]
    assert 0 < right["ece_if_calibrated"] < right["ece_if_calibrated_high"]
    # half of the true rates: off by their half, .155 on average
    assert wrong["ece"] == pytest.approx(0.155, abs=0.02)
    assert wrong["low"] > wrong["ece_if_calibrated_high"]
    assert reliability(predicted, observed, owners, 100, 0, 0.95) == right


def test_intervals_resample_users_not_items() -> None:
    # ten items of a user share one outcome: as uncertain as 40 observations, not 400
    rng = np.random.default_rng(1)
    chosen = np.repeat(rng.random(40) < 0.5, 10)
    predicted = np.full(400, 0.5, dtype=np.float32)
    by_user = reliability(predicted, chosen, np.repeat(np.arange(40), 10), 200, 0, 0.95)
    by_item = reliability(predicted, chosen, np.arange(400), 200, 0, 0.95)
    assert by_user is not None
    assert by_item is not None

    def width(found: dict[str, list[dict[str, float]]]) -> float:
        return found["bins"][0]["high"] - found["bins"][0]["low"]

    assert width(by_user) > 2 * width(by_item)


def test_padding_is_left_out_and_a_system_without_probabilities_has_none() -> None:
    likely = np.array([[[0.5, 0.2], [np.nan, np.nan]], [[0.1, 0.1], [0.3, 0.1]]], dtype=np.float32)
    chosen = np.array([[[1, 1], [0, 0]], [[0, 0], [1, 0]]], dtype=np.bool_)
    summary = calibration_summary(likely, chosen, 10, 0, 0.95)
    assert summary is not None
    assert summary["k"] == 2
    assert summary["click"]["pairs"] == summary["purchase"]["pairs"] == 3
    assert summary["click"]["mean_observed"] == pytest.approx(2 / 3)
    assert summary["purchase"]["mean_observed"] == pytest.approx(1 / 3)
    assert calibration_summary(None, chosen, 10, 0, 0.95) is None
    assert calibration_summary(np.full_like(likely, np.nan), chosen, 10, 0, 0.95) is None
