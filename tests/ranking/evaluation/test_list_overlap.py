from __future__ import annotations

import numpy as np
import pytest

from ranking.evaluation.list_overlap import overlap_at, rank_biased_overlap


def rows(*lists: list[int]) -> np.ndarray:
    width = max(map(len, lists), default=0)
    return np.array([[*one, *[-1] * (width - len(one))] for one in lists], dtype=np.int32)


def by_definition(first: list[int], second: list[int], p: float) -> float:
    """Eq. 32 of Webber et al. 2010, written down depth by depth."""
    short, long = sorted((first, second), key=len)
    s, l = len(short), len(long)  # noqa: E741 - the paper's letters
    x = {d: len(set(short[:d]) & set(long[:d])) for d in range(1, l + 1)}
    seen = sum(x[d] / d * p**d for d in range(1, l + 1))
    assumed = sum(x[s] * (d - s) / (s * d) * p**d for d in range(s + 1, l + 1))
    return (1 - p) / p * (seen + assumed) + ((x[l] - x[s]) / l + x[s] / s) * p**l


def test_overlap_by_hand() -> None:
    first = rows([1, 2, 3, 4], [1, 2], [], [5], [])
    second = rows([4, 9, 1, 8], [1, 2, 3, 4], [7], [5], [])
    np.testing.assert_allclose(overlap_at(first, second, 4), [0.5, 0.5, 0.0, 1.0, 1.0])
    np.testing.assert_allclose(overlap_at(first, second, 1), [0.0, 1.0, 0.0, 1.0, 1.0])


def test_rank_biased_overlap_by_hand() -> None:
    first, second = rows([1, 2], [1, 2], [1, 2]), rows([1, 2], [3, 4], [1, 3])
    # Agreement 1 at depth 1 and 1/2 at depth 2: (1 - p) / p * (p + p^2 / 2) + 1/2 p^2 with p = 1/2.
    np.testing.assert_allclose(rank_biased_overlap(first, second, 0.5), [1.0, 0.0, 0.75])


def test_rank_biased_overlap_is_the_papers_formula_for_any_two_lengths() -> None:
    rng = np.random.default_rng(0)
    for p in (0.5, 0.9, 0.98):
        pairs = [
            tuple(rng.permutation(12)[: rng.integers(1, 10)].tolist() for _ in range(2)) for _ in range(50)
        ]
        found = rank_biased_overlap(rows(*(a for a, _ in pairs)), rows(*(b for _, b in pairs)), p)
        np.testing.assert_allclose(found, [by_definition(a, b, p) for a, b in pairs], atol=1e-12)
        np.testing.assert_allclose(
            found, rank_biased_overlap(rows(*(b for _, b in pairs)), rows(*(a for a, _ in pairs)), p)
        )


def test_empty_lists_and_wrong_persistence() -> None:
    nothing = np.full((2, 3), -1, dtype=np.int32)
    np.testing.assert_array_equal(rank_biased_overlap(nothing, nothing), [1.0, 1.0])
    np.testing.assert_array_equal(rank_biased_overlap(nothing, rows([1], [2])), [0.0, 0.0])
    assert len(rank_biased_overlap(nothing[:0], nothing[:0])) == 0
    with pytest.raises(ValueError, match="persistence"):
        rank_biased_overlap(nothing, nothing, 1.0)
