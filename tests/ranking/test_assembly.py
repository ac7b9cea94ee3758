from __future__ import annotations

import numpy as np
import pytest

from conf.schema import CandidateConfig
from features.data.statistics import Neighbours, item_statistics
from ranking import assembly
from ranking.assembly import item_arrays, nearest_lenders, pca_units, text_neighbours
from ranking.retrieval.index_choice import build_index
from tests.synthetic import DAY, START, everything, make_dataset, make_factors, random_units

ITEMS = 14


def test_demand_of_the_nearest_texts_by_hand() -> None:
    """Item 0 is bought three times now, item 1 once now and once 14 days ago, the others never."""
    rows = [("u", "i0", "purchase", START)] * 3
    rows += [("v", "i1", "purchase", START - 14 * DAY), ("v", "i1", "purchase", START)]
    data = make_dataset(rows, [f"i{n}" for n in range(ITEMS)])
    statistics = item_statistics(data, everything(data), START, 3, 2)
    assert statistics.recent[:3].tolist() == [3.0, 1.5, 0.0]
    ids = np.full((ITEMS, 12), -1, np.int32)
    ids[0, 0] = 1
    ids[2, :3] = [0, 1, 3]
    ids[3] = [4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 1, 13]
    ids[4] = [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0, 1]
    near = Neighbours(ids, np.where(ids >= 0, 0.5, 0.0).astype(np.float32))
    arrays = item_arrays(statistics, random_units(ITEMS, 8), None, CandidateConfig(), near)
    expected = np.zeros(ITEMS)
    expected[0] = np.log(2.5)
    expected[2] = (np.log(4) + np.log(2.5)) / 3
    expected[3] = np.log(4) / 10  # item 1 is the eleventh nearest; both are beyond the ten for item 4
    np.testing.assert_allclose(arrays.text_near_recent, expected, rtol=1e-6)
    assert arrays.text_near_recent.dtype == np.float32


def test_factors_are_taken_as_they_are_and_no_factors_have_no_columns() -> None:
    rows = [(f"u{n % 3}", f"i{n % 5}", "purchase", START + n) for n in range(12)]
    data = make_dataset(rows, [f"i{n}" for n in range(ITEMS)])
    statistics = item_statistics(data, everything(data), START, 3, 2)
    vectors, factors = random_units(ITEMS, 8), make_factors(data, dim=4)
    config = CandidateConfig(neighbours=5)
    with_factors = item_arrays(statistics, vectors, None, config, factors=factors)
    without = item_arrays(statistics, vectors, None, config)
    assert with_factors.factor_vectors is factors.vectors
    assert without.factor_vectors.shape == (ITEMS, 0)
    assert without.factor_vectors.dtype == np.float32
    assert without.text_near.ids.shape == (ITEMS, 5)


def test_neighbours_and_lenders_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    units = pca_units(random_units(50, 24, seed=4))
    index, known = build_index(units), np.arange(50) % 3 == 0
    whole = text_neighbours(units, 6), nearest_lenders(index, units[:20], known)
    monkeypatch.setattr(assembly, "_QUERIES", 7)
    parts = text_neighbours(units, 6), nearest_lenders(index, units[:20], known)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_allclose(one.weights, other.weights, atol=1e-6)
    assert (parts[0].ids >= 0).all()
    assert len(nearest_lenders(index, units[:0], known).ids) == 0
