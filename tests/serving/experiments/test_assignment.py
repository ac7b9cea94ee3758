"""Assignment to arms: known positions, exact shares, independence, and who moves when shares change."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from serving.experiments.assignment import arm_at, arm_ranges, position

UNITS = [f"user-{n}" for n in range(100_000)]


@pytest.mark.parametrize(
    ("salt", "unit", "expected"),
    # printf '%s' SALT:UNIT | sha256sum | cut -c1-13, read as a hexadecimal number, divided by 2^52
    [
        ("ranking", "u1", 0.06927471449707112),  # 11bbfcd934647
        ("ranking", "u2", 0.07221702783253359),  # 127cd0acc14b3
        ("checkout-2024", "Zoë", 0.45090852712018825),  # 736ebdc177ff3
        ("layer/home", "u1", 0.991571519270992),  # fdd7a18ee9f84
    ],
)
def test_positions_are_those_that_any_program_computes(salt: str, unit: str, expected: float) -> None:
    assert position(salt, unit) == expected


def arms(salt: str, shares: list[float]) -> list[int | None]:
    ranges = arm_ranges(shares)
    return [arm_at(ranges, position(salt, unit)) for unit in UNITS]


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.9, 0.1], [0.99, 0.01], [0.2, 0.3, 0.1, 0.35], [0.05]])
def test_arms_have_their_shares(shares: list[float]) -> None:
    found = arms("ranking", shares)
    counts = [found.count(number) for number in range(len(shares))]
    expected = [share * len(UNITS) for share in shares]
    if (rest := len(UNITS) - sum(expected)) > 1e-6:
        counts.append(found.count(None))
        expected.append(rest)
    assert None not in found or rest > 1e-6
    assert chisquare(counts, expected).pvalue > 1e-3


def test_positions_are_uniform_in_fine_bins() -> None:
    found = np.array([position("ranking", unit) for unit in UNITS])
    assert chisquare(np.histogram(found, bins=200, range=(0, 1))[0]).pvalue > 1e-3


def test_experiments_with_different_salts_are_independent() -> None:
    table = np.zeros((2, 2))
    for one, other in zip(arms("ranking", [0.5, 0.5]), arms("layout", [0.5, 0.5]), strict=True):
        table[one, other] += 1
    assert chi2_contingency(table).pvalue > 1e-3


def test_ranges_by_hand() -> None:
    assert arm_ranges([0.01, 0.01]) == [((0.0, 0.01),), ((0.5, 0.51),)]
    assert arm_ranges([0.5, 0.5]) == [((0.0, 0.5),), ((0.5, 1.0),)]
    # The first arm's excess of 0.2 takes the end of the second one's home.
    assert arm_ranges([0.7, 0.1]) == [((0.0, 0.5), (0.8, 1.0)), ((0.5, 0.6),)]
    assert arm_ranges([0.1, 0.9]) == [((0.0, 0.1),), ((0.1, 0.5), (0.5, 1.0))]
    assert arm_ranges([0.0, 1.0]) == [(), ((0.0, 0.5), (0.5, 1.0))]
    assert arm_ranges([]) == []


SHARES = st.lists(st.integers(0, 1000), min_size=1, max_size=6).map(
    lambda parts: [part / max(1000, sum(parts)) for part in parts]
)


@settings(max_examples=300, deadline=None)
@given(SHARES)
def test_ranges_have_the_shares_and_do_not_overlap(shares: list[float]) -> None:
    ranges = arm_ranges(shares)
    for share, of_arm in zip(shares, ranges, strict=True):
        assert sum(end - begin for begin, end in of_arm) == pytest.approx(share, abs=1e-9)
    every = sorted(part for of_arm in ranges for part in of_arm)
    assert all(0 <= begin < end <= 1 for begin, end in every)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(every))


def moved(before: list[float], after: list[float]) -> float:
    """Return the measure of the positions that change from one arm to another."""
    bounds = {
        bound for shares in (before, after) for of_arm in arm_ranges(shares) for p in of_arm for bound in p
    }
    cuts = sorted(bounds | {0.0, 1.0})
    total = 0.0
    for begin, end in pairwise(cuts):
        one, other = (arm_at(arm_ranges(shares), (begin + end) / 2) for shares in (before, after))
        total += (end - begin) * (one is not None and other is not None and one != other)
    return total


TWO = st.tuples(st.integers(0, 1000), st.integers(0, 1000)).map(
    lambda parts: [part / max(1000, sum(parts)) for part in parts]
)


@settings(max_examples=300, deadline=None)
@given(TWO, TWO)
def test_with_two_arms_only_those_move_who_must(before: list[float], after: list[float]) -> None:
    """What an arm gains beyond what was in no arm has to come from the other arm."""
    free = 1 - sum(before)
    needed = max(0.0, *(new - old - free for old, new in zip(before, after, strict=True)))
    assert moved(before, after) == pytest.approx(needed, abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6))
def test_nobody_changes_arms_while_arms_fit_their_homes(scales: list[tuple[float, float]]) -> None:
    before, after = ([scale / len(scales) for scale in column] for column in zip(*scales, strict=True))
    assert moved(before, after) == pytest.approx(0, abs=1e-12)
