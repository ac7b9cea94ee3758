from __future__ import annotations

import numpy as np
import pytest
import torch

from encoders.towers.compiled_user_tower import TILE, CompiledUserTower
from encoders.towers.sequences import windows
from encoders.towers.towers import Towers
from encoders.towers.user_tower import UserEncoder
from features.data.dataset import FloatArray
from features.data.histories import HistoryBatch, batch_histories
from tests.synthetic import random_units

ITEMS, KINDS = 50, 3


def histories(lengths: list[int], seed: int = 0) -> HistoryBatch:
    """Gaps of 0 seconds, of whole buckets and a second beside, of years, and backwards."""
    rng = np.random.default_rng(seed)
    edges = 60 * (2 ** np.arange(18) - 1)
    gaps = np.concatenate([[0, 0, -500, 10**9], edges, edges + 1, edges - 1])
    return batch_histories(
        [rng.integers(0, ITEMS, n).astype(np.int32) for n in lengths],
        [rng.integers(0, KINDS, n).astype(np.int8) for n in lengths],
        [10**9 + np.cumsum(rng.choice(gaps, n)) for n in lengths],
        [2 * 10**9] * len(lengths),
    )


def towers(dim: int = 16, layers: int = 1, heads: int = 2, max_length: int = 12) -> Towers:
    """Every weight at random: layer norms and biases begin as ones and zeros."""
    torch.manual_seed(dim + layers + heads)
    built = Towers(8, ITEMS, KINDS, dim=dim, layers=layers, heads=heads, max_length=max_length, dropout=0.5)
    with torch.no_grad():
        for weight in built.user_encoder.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return built.eval()


def by_the_module(built: Towers, batch: HistoryBatch, items: FloatArray) -> FloatArray:
    with torch.no_grad():
        vectors = built.user_vectors(windows(batch, built.max_length), torch.from_numpy(items)).numpy()
    return np.where(np.diff(batch.offsets)[:, None] > 0, vectors, 0.0).astype(np.float32)


@pytest.mark.parametrize(
    ("dim", "heads", "max_length"), [(6, 1, 12), (7, 7, 1), (16, 2, 12), (64, 4, 30), (128, 2, 50)]
)
def test_it_is_the_module(dim: int, heads: int, max_length: int) -> None:
    built, items = towers(dim, 1, heads, max_length), random_units(ITEMS, dim)
    batch = histories(
        [0, 1, 2, max_length - 1, max_length, max_length + 1, 3 * max_length, 0, 5] + [7] * 3 * TILE
    )
    found = CompiledUserTower.of(built.user_encoder).newest(batch, items)
    np.testing.assert_allclose(found, by_the_module(built, batch, items), atol=1e-5)
    assert np.array_equal(found, built.encode(batch, items)), "towers answer with it"
    assert not found[0].any()
    assert np.abs(found[1:3]).max() > 0.1


def test_every_gap_falls_into_the_modules_bucket() -> None:
    built, items = towers(max_length=2), np.zeros((ITEMS, 16), np.float32)
    near = [60 * (2**k - 1) + n for k in range(20) for n in (-1, 0, 1)]
    pairs = np.array([[0, gap] for gap in [*near, *range(200), 2**24, 2**33 + 1]])
    none = np.zeros(2, np.int32)
    batch = batch_histories(
        [none] * len(pairs), [none.astype(np.int8)] * len(pairs), list(pairs), [2**34] * len(pairs)
    )
    found = built.encode(batch, items)
    np.testing.assert_allclose(found, by_the_module(built, batch, items), atol=1e-5)
    assert len(np.unique(found.round(4), axis=0)) == 16


def test_a_vector_is_the_same_to_the_last_bit_whatever_stands_beside_it() -> None:
    built, items = towers(), random_units(ITEMS, 16)
    batch = histories([*range(2 * TILE), 0, 40, 3])
    together = built.encode(batch, items)
    for place in range(len(batch)):
        assert np.array_equal(built.encode(batch.select(place, place + 1), items)[0], together[place])


def test_no_histories_have_no_vectors() -> None:
    assert towers().encode(histories([]), random_units(ITEMS, 16)).shape == (0, 16)
    assert towers().encode(histories([0, 0]), random_units(ITEMS, 16)).tolist() == [[0.0] * 16] * 2


def test_several_layers_are_left_to_the_module() -> None:
    built, items = towers(layers=2), random_units(ITEMS, 16)
    batch = histories([0, 1, 12, 30])
    assert np.array_equal(built.encode(batch, items), by_the_module(built, batch, items))
    assert built.encode(histories([]), items).shape == (0, 16)
    with pytest.raises(ValueError, match="only a tower of one layer can be compiled"):
        CompiledUserTower.of(UserEncoder(16, 2, 2, 12, KINDS, 0.0))


def test_what_was_frozen_does_not_follow_and_training_thaws() -> None:
    built, items, batch = towers(), random_units(ITEMS, 16), histories([3])
    before = built.encode(batch, items)
    with torch.no_grad():
        built.user_encoder.output_norm.bias.add_(1.0)
    assert np.array_equal(built.encode(batch, items), before)
    np.testing.assert_allclose(built.eval().encode(batch, items), before + 1.0, atol=1e-5)
