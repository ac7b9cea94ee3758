from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conf.encoders import TextEncoderConfig
from encoders.contexts import ContextSampler
from encoders.factors.affinity import Affinity, imputation_neighbours
from encoders.towers.item_tower import whitening
from features.data.dataset import Dataset, FloatArray
from tests.synthetic import everything, make_dataset, random_units

ITEMS = 40
DIM = 48
CPU = torch.device("cpu")
SETTINGS = TextEncoderConfig(affinity_steps=120)


def pairs_shop() -> tuple[Dataset, FloatArray]:
    """Item 2n goes with item 2n + 1, whose text has nothing to do with it."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(300):
        bought = [i for pair in rng.permutation(ITEMS // 2)[:2] for i in (2 * pair, 2 * pair + 1)]
        rows += [(f"u{user}", f"i{i:02d}", "purchase", place) for place, i in enumerate(bought)]
    return make_dataset(rows, [f"i{i:02d}" for i in range(ITEMS)]), random_units(ITEMS, DIM, seed=2)


def sampler_of(data: Dataset) -> ContextSampler:
    return ContextSampler(
        data.events, everything(data), data.kind_weights, np.arange(ITEMS, dtype=np.int32), 5, 8
    )


def partner_ranks(units: FloatArray) -> np.ndarray:
    """Rank of each item's partner among all others, from 0."""
    cosines = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    partner = np.arange(ITEMS) ^ 1
    ranks: np.ndarray = (cosines > cosines[np.arange(ITEMS), partner][:, None]).sum(axis=1)
    return ranks


def test_what_goes_together_comes_to_lie_close() -> None:
    data, vectors = pairs_shop()
    fitted = Affinity.fit(vectors, sampler_of(data), SETTINGS, seed=0, device=CPU)
    assert fitted is not None
    units = fitted.units(vectors)
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1.0, atol=1e-5)
    assert partner_ranks(vectors).mean() > 15, "texts alone do not tell"
    assert partner_ranks(units).mean() < 5


def test_it_starts_as_the_whitening() -> None:
    data, vectors = pairs_shop()
    barely = Affinity.fit(vectors, sampler_of(data), replace(SETTINGS, affinity_steps=1), seed=0, device=CPU)
    mean, matrix = whitening(vectors)
    assert barely is not None
    np.testing.assert_allclose(barely.matrix, matrix, atol=1e-3)
    np.testing.assert_allclose(barely.shift, -mean @ matrix, atol=1e-3)


def test_the_same_seed_learns_the_same() -> None:
    data, vectors = pairs_shop()
    short = replace(SETTINGS, affinity_steps=5)
    first, again, other = (
        Affinity.fit(vectors, sampler_of(data), short, seed, device=CPU) for seed in (0, 0, 1)
    )
    assert first is not None
    assert again is not None
    assert other is not None
    assert np.array_equal(first.matrix, again.matrix)
    assert not np.array_equal(first.matrix, other.matrix)


def test_nothing_to_learn_from() -> None:
    data = make_dataset([("u", "i00", "purchase", 0)], [f"i{i:02d}" for i in range(ITEMS)])
    vectors = random_units(ITEMS, DIM)
    assert Affinity.fit(vectors, sampler_of(data), SETTINGS, 0, device=CPU) is None
    shop, texts = pairs_shop()
    assert Affinity.fit(texts, sampler_of(shop), replace(SETTINGS, affinity_steps=0), 0, device=CPU) is None


def test_saved_and_loaded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    affinity = Affinity(rng.normal(size=(4, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32))
    assert Affinity.load(tmp_path / "none") is None
    affinity.save(tmp_path / "map")
    again = Affinity.load(tmp_path / "map")
    assert again is not None
    vectors = random_units(7, 4)
    assert np.array_equal(again.units(vectors), affinity.units(vectors))


@pytest.mark.parametrize("block", [1, 1 << 24])
def test_lenders_by_hand(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    import encoders.factors.affinity as module

    monkeypatch.setattr(module, "BLOCK", block)
    angle = np.array([0.0, 0.1, 0.3, 2.0, 0.05])
    units = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    known = np.array([True, False, True, True, False])
    found = imputation_neighbours(units[[1, 4]], units, known, 4)
    assert found.ids.tolist() == [[0, 2, 3, -1], [0, 2, 3, -1]]
    expected = [[np.cos(0.1), np.cos(0.2), 0, 0], [np.cos(0.05), np.cos(0.25), 0, 0]]
    np.testing.assert_allclose(found.weights, expected, atol=1e-6)
    nobody = imputation_neighbours(units[[1]], units, np.zeros(5, bool), 4)
    assert (nobody.ids == -1).all()
    assert (nobody.weights == 0).all()


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_lenders_are_the_nearest_of_those_with_a_past(share: float) -> None:
    rng = np.random.default_rng(0)
    units = rng.standard_normal((50, 6)).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    known = np.arange(50) % 10 < 10 * share
    rows = np.flatnonzero(~known).astype(np.int32)
    found = imputation_neighbours(units[rows], units, known, 3)
    for row, ids, weights in zip(rows, found.ids, found.weights, strict=True):
        near = sorted(np.flatnonzero(known), key=lambda other: -float(units[row] @ units[other]))[:3]
        assert ids.tolist() == near
        np.testing.assert_allclose(weights, np.maximum(units[near] @ units[row], 0), rtol=1e-5)
