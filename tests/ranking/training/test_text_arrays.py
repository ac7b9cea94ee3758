"""Arrays over texts, shared by the recommenders of several cuts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conf.schema import PipelineConfig
from encoders.factors.affinity import Affinity, imputation_neighbours
from encoders.factors.co_purchase import IMPUTATION_NEIGHBOURS
from features.data.dataset import IntArray
from ranking.training import text_arrays
from ranking.training.text_arrays import TextArrays
from tests.synthetic import random_units

ITEMS = 300


def arrays(affinity: Affinity | None) -> TextArrays:
    return TextArrays.of(replace(PipelineConfig(), device="cpu"), random_units(ITEMS, 16), affinity)


def affinity_of(seed: int) -> Affinity:
    rng = np.random.default_rng(seed)
    return Affinity(rng.normal(size=(16, 16)).astype(np.float32), np.zeros(16, np.float32))


def rows_without(known: np.ndarray) -> IntArray:
    return np.flatnonzero(~known).astype(np.int32)


def test_without_affinity_factors_come_from_the_nearest_texts() -> None:
    texts = arrays(None)
    rows = np.array([3, 250], np.int32)
    found = texts.lenders(rows, np.ones(ITEMS, np.bool_))
    assert np.array_equal(found.ids, texts.near.ids[rows])
    assert np.array_equal(found.weights, texts.near.weights[rows])


def test_a_search_for_a_large_catalogue_finds_what_the_exact_one_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = arrays(affinity_of(1))
    known = np.random.default_rng(0).random(ITEMS) < 0.5
    rows = rows_without(known)
    units = texts.affinity_units
    assert units is not None
    exact = imputation_neighbours(units[rows], units, known, IMPUTATION_NEIGHBOURS)
    here = texts.lenders(rows, known)
    assert np.array_equal(here.ids, exact.ids)
    monkeypatch.setattr(text_arrays, "EXACT", 0)
    searched = texts.lenders(rows, known)
    assert np.array_equal(np.sort(searched.ids), np.sort(exact.ids)), "an index of this size is exact"
    np.testing.assert_allclose(searched.weights, exact.weights, atol=1e-5)
    assert known[searched.ids].all()


def test_another_affinity_keeps_what_depends_on_texts_alone() -> None:
    texts = arrays(affinity_of(1))
    other = texts.mapped_by(affinity_of(2))
    assert other.near is texts.near
    assert other.units is texts.units
    assert texts.affinity_units is not None
    assert other.affinity_units is not None
    assert not np.allclose(other.affinity_units, texts.affinity_units)
    assert texts.mapped_by(None).affinity_units is None
