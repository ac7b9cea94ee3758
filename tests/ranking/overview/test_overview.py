from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ranking.overview.overview as module
from features.data.dataset import FloatArray
from features.data.statistics import Neighbours
from ranking.overview.layout import project
from ranking.overview.overview import LEAST, NEARLY_EQUAL, Overview

ANGLES = [0.0, 0.0, 0.1, 0.15, 0.5, 1.5, 0.0]
TEXTS = ["tree", "tree", "tree 60cm", "tree 90cm", "bush", "mug", "tree"]


def vectors() -> FloatArray:
    """Return unit vectors whose cosines are those of differences of `ANGLES`."""
    return np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)


def test_equal_texts_are_paired_with_the_first_and_near_ones_with_each_other() -> None:
    found = Overview.of(TEXTS, vectors())
    listed = list(zip(found.pairs.tolist(), found.cosines.tolist(), strict=True))
    # Texts, by their first items: tree 0, tree 60cm 2, tree 90cm 3, bush 4, mug 5; cos 0.45 = 0.9004 is the
    # least that is stored, the others: cos 0.05, 0.1, 0.15, 0.35, 0.4.
    assert [pair for pair, _ in listed] == [[0, 1], [0, 6], [2, 3], [0, 2], [0, 3], [3, 4], [2, 4]]
    assert [cosine for _, cosine in listed] == pytest.approx(
        [1, 1, *np.cos([0.05, 0.1, 0.15, 0.35, 0.4])], abs=1e-6
    )
    assert min(found.cosines) >= LEAST
    assert found.positions.shape == (7, 2)


def test_groups_are_connected_pairs_the_largest_first() -> None:
    found = Overview.of(TEXTS, vectors())
    assert [g.tolist() for g in found.groups(1.0)] == [[0, 1, 6]]
    assert [g.tolist() for g in found.groups(0.998)] == [[0, 1, 6], [2, 3]]
    assert [g.tolist() for g in found.groups(NEARLY_EQUAL)] == [[0, 1, 2, 3, 6]]
    # bush (4) is close to tree 90cm alone, and joins all.
    assert [g.tolist() for g in found.groups(0.93)] == [[0, 1, 2, 3, 4, 6]]


def test_given_neighbours_are_used_where_all_texts_differ() -> None:
    texts = [f"text {i}" for i in range(7)]
    only = np.array([[1], [0], [3], [2], [3], [4], [0]], dtype=np.int32)
    near = Neighbours(only, np.ones((7, 1), dtype=np.float32))
    found = Overview.of(texts, vectors(), near)
    # Of the equal vectors 0, 1 and 6 only those pairs are found that the neighbours hold.
    assert found.pairs.tolist() == [[0, 1], [0, 6], [2, 3], [3, 4]]


def test_an_overview_survives_saving(tmp_path: Path) -> None:
    assert Overview.load(tmp_path, 7) is None
    made = Overview.of(TEXTS, vectors())
    made.save(tmp_path)
    read = Overview.load(tmp_path, 7)
    assert read is not None
    assert read.is_layout is True
    for name in ("positions", "pairs", "cosines"):
        assert np.array_equal(getattr(read, name), getattr(made, name)), name
        assert getattr(read, name).dtype == getattr(made, name).dtype
    assert Overview.load(tmp_path, 8) is None, "of another catalogue"


def test_nothing_alike_is_an_overview_without_pairs(tmp_path: Path) -> None:
    made = Overview.of(["a", "b"], np.eye(2, dtype=np.float32))
    assert made.pairs.shape == (0, 2)
    assert made.groups() == []
    made.save(tmp_path)
    read = Overview.load(tmp_path, 2)
    assert read is not None
    assert read.groups() == []


@pytest.mark.parametrize("count", [0, 1])
def test_a_catalogue_without_pairs_at_all(count: int) -> None:
    made = Overview.of(["a"] * count, np.ones((count, 1), dtype=np.float32))
    assert made.positions.shape == (count, 2)
    assert made.groups() == []


def test_without_the_library_the_map_is_of_principal_components(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "can_lay_out", lambda: False)
    texts = [f"text {i}" for i in range(7)]
    made = Overview.of(texts, vectors())
    assert made.is_layout is False
    assert np.array_equal(made.positions, project(vectors()))
