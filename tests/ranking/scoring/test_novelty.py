"""How far new items are moved up at which price."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.data.dataset import BoolArray, FloatArray
from ranking.scoring.novelty import BUDGETS, CUTOFF, Novelty


def drawn(lists: int = 400, known: int = 30, new: int = 8) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return scores, probabilities and which candidates are unknown; some lists are short."""
    rng = np.random.default_rng(0)
    scores = np.round(rng.normal(0.0, 1.0, (lists, known + new)), 4).astype(np.float32)
    unknown = np.zeros(scores.shape, dtype=np.bool_)
    unknown[:, known:] = True
    scores[:, known:] -= 2.0
    clicks = (0.1 / (1.0 + np.exp(-scores))).astype(np.float32)
    scores[::7, 15:] = -np.inf
    return scores, clicks, unknown & np.isfinite(scores)


def first_ten(
    scores: FloatArray, clicks: FloatArray, unknown: BoolArray, offset: float
) -> tuple[float, float]:
    """Return the expected choices and the share of unknown items among the first ten, the simple way."""
    moved = np.where(unknown, scores + np.float32(offset), scores)
    first = np.argsort(-moved, axis=1, kind="stable")[:, :CUTOFF]
    expected = np.where(np.isfinite(scores), clicks, 0.0)
    return float(np.take_along_axis(expected, first, axis=1).sum()), float(
        np.take_along_axis(unknown, first, axis=1).mean()
    )


@pytest.mark.parametrize("budget", BUDGETS[1:8])
def test_the_offset_of_a_budget_spends_it(budget: float) -> None:
    lists = drawn()
    novelty = Novelty.of_lists(*lists, rate=0.2)
    assert novelty is not None
    before, few = first_ten(*lists, 0.0)
    after, more = first_ten(*lists, novelty.offset(budget))
    item = 0.1 / before  # more than any single item costs
    assert budget - item < 1 - after / before < budget + 1e-6
    assert more > few


def test_no_budget_moves_nothing() -> None:
    novelty = Novelty.of_lists(*drawn(), rate=0.2)
    assert novelty is not None
    assert novelty.offset(0.0) == 0.0


def test_offsets_by_hand() -> None:
    """Ten known items, each chosen by one in ten, and a new one at score 0 that is chosen by one in twenty.

    It lacks 1 in the first list and 2 in the second. Letting it in costs .05 of 2 expected choices.
    """
    known = np.array([[10.0, 9, 8, 7, 6, 5, 4, 3, 2, 1], [11.0, 10, 9, 8, 7, 6, 5, 4, 3, 2]])
    scores = np.concatenate([known, np.zeros((2, 1))], axis=1).astype(np.float32)
    clicks = np.full(scores.shape, 0.1, dtype=np.float32)
    clicks[:, 10] = 0.05
    unknown = np.zeros(scores.shape, dtype=np.bool_)
    unknown[:, 10] = True
    novelty = Novelty.of_lists(scores, clicks, unknown, rate=0.05)
    assert novelty is not None
    offsets = dict(zip(novelty.budgets, novelty.offsets, strict=True))
    assert offsets[0.02] == 0.0, "one costs .025 of what is expected"
    assert offsets[0.05] == pytest.approx(2.0, abs=1e-3), "both"
    assert offsets[1.0] == pytest.approx(2.0, abs=1e-3), "there are no more"
    assert 0.0 < novelty.offset(0.03) < novelty.offset(0.04) < 2.0


def test_a_few_new_items_are_not_in_every_list() -> None:
    lists = drawn()
    novelty = Novelty.of_lists(*lists, rate=0.005)
    assert novelty is not None
    assert first_ten(*lists, novelty.offset(1.0))[1] == pytest.approx(0.02, abs=1e-3), "four times .005"


def test_what_is_given_fades_with_what_becomes_known() -> None:
    novelty = Novelty((0.0, 0.1), (0.0, 2.0))
    given = novelty.added([0.1, 0.05, 0.0], np.array([[0.0, 1.0, 3.0]] * 3, dtype=np.float32))
    assert given.tolist() == [[2.0, 1.0, 0.5], [1.0, 0.5, 0.25], [0.0, 0.0, 0.0]]


def test_a_catalogue_without_new_items_says_nothing() -> None:
    scores, clicks, unknown = drawn()
    assert Novelty.of_lists(scores, clicks, np.zeros_like(unknown), rate=0.0) is None


def test_a_saved_table_is_the_same(tmp_path: Path) -> None:
    assert Novelty.load(tmp_path) is None, "older bundles have none"
    novelty = Novelty.of_lists(*drawn(), rate=0.2)
    assert novelty is not None
    novelty.save(tmp_path)
    assert Novelty.load(tmp_path) == novelty
