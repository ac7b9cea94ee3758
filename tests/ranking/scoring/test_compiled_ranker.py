from __future__ import annotations

import numpy as np
import pytest
import torch

from features.data.dataset import FloatArray
from ranking.scoring.compiled_ranker import TILE
from ranking.scoring.ranker import Ranker


def values(rows: int, features: int, seed: int = 0) -> FloatArray:
    """Long tails, a constant and a column of zeros and ones."""
    rng = np.random.default_rng(seed)
    block = np.exp(3 * rng.normal(size=(rows, features))).astype(np.float32)
    block[:, 0], block[:, 1] = 7.0, rng.random(rows) < 0.1
    return block


def fitted(features: int, hidden: list[int]) -> Ranker:
    torch.manual_seed(features)
    ranker = Ranker([f"f{n}" for n in range(features)], hidden, dropout=0.3)
    ranker.fit_scale(values(500, features, seed=1))
    return ranker.eval()


@pytest.mark.parametrize("hidden", [[], [1], [8, 4], [7, 5, 3], [64, 32]])
@pytest.mark.parametrize("features", [2, 3, 58])
def test_it_is_the_network(features: int, hidden: list[int]) -> None:
    ranker = fitted(features, hidden)
    asked = values(TILE + 9, features)
    asked[0], asked[1] = 1e9, -1e9
    asked[2 : 2 + ranker.scale.knots.shape[1]] = ranker.scale.knots.T.numpy()
    with torch.no_grad():
        expected = ranker(torch.from_numpy(asked))
    np.testing.assert_allclose(ranker.compiled().logits(asked), expected, rtol=1e-5, atol=1e-5)


def test_a_candidates_logits_are_the_same_to_the_last_bit_wherever_it_stands() -> None:
    frozen, asked = fitted(58, [64, 32]).compiled(), values(3 * TILE + 1, 58)
    together = frozen.logits(asked)
    order = np.random.default_rng(0).permutation(len(asked))
    assert np.array_equal(frozen.logits(asked[order]), together[order])
    for place in (0, TILE - 1, TILE, 3 * TILE):
        assert np.array_equal(frozen.logits(asked[place]), together[place])


def test_no_candidates_have_no_logits() -> None:
    assert fitted(3, [4]).compiled().logits(np.zeros((2, 0, 3), np.float32)).shape == (2, 0, 3)


def test_what_was_frozen_does_not_follow_and_training_thaws() -> None:
    ranker, asked = fitted(3, [4]), values(2, 3)[None]
    before = ranker.score(asked)[0]
    with torch.no_grad():
        ranker.heads.bias.add_(1.0)
    assert np.array_equal(ranker.score(asked)[0], before)
    np.testing.assert_allclose(ranker.eval().score(asked)[0], before + 1.0, rtol=1e-5)
