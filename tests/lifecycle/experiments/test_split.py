from __future__ import annotations

import pytest

from lifecycle.experiments.split import split_check, split_checks

HALVES = {"a": 0.5, "b": 0.5}


def test_chi_square_by_hand() -> None:
    # (60 - 50)² / 50 + (40 - 50)² / 50 = 4, p = 0.0455; (550, 450): 10, p = 0.00157
    found = split_check({"a": 60, "b": 40}, HALVES)
    assert found["chi_square"] == pytest.approx(4.0)
    assert found["p_value"] == pytest.approx(0.0455, abs=1e-4)
    assert not found["broken"]
    assert not split_check({"a": 550, "b": 450}, HALVES)["broken"]
    assert split_check({"a": 560, "b": 440}, HALVES)["broken"]  # 14.4, p = 0.00015


def test_shares_count_by_their_ratios() -> None:
    found = split_check({"a": 30, "b": 10, "stranger": 7}, {"a": 0.03, "b": 0.01})
    assert found["expected"] == pytest.approx({"a": 30.0, "b": 10.0})
    assert found["p_value"] == pytest.approx(1.0)


def test_an_arm_without_units_is_a_mismatch_and_few_units_are_no_test() -> None:
    assert split_check({"a": 100}, HALVES)["broken"]
    assert split_check({"a": 9}, HALVES)["p_value"] is None
    assert split_check({"a": 900}, {"a": 1.0})["p_value"] is None


def test_many_days_are_not_many_chances() -> None:
    days = {f"day {n}": {"a": 500, "b": 500} for n in range(29)}
    parts = split_checks({**days, "odd": {"a": 554, "b": 446}}, HALVES)  # 11.664, p = 0.00064
    assert parts["odd"]["p_value"] == pytest.approx(0.00064, abs=1e-5)
    assert not parts["odd"]["broken"]  # not below 0.001 / 30
    assert split_checks({"odd": {"a": 554, "b": 446}}, HALVES)["odd"]["broken"]
