"""What is measured of lists under a budget for new items, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.novelty import measure
from ranking.scoring.novelty import Novelty
from ranking.training.examples import Examples


def test_a_curve_by_hand() -> None:
    """Eleven known candidates and a new one, which is right; of the known ones, the first and tenth are."""
    scores = np.concatenate([np.arange(11.0, 0.0, -1.0), [0.5]])[None].astype(np.float32)
    unknown = np.zeros((1, 12), dtype=np.bool_)
    unknown[0, 11] = True
    chosen = np.zeros((1, 12), dtype=np.bool_)
    chosen[0, [0, 9, 11]] = True
    examples = Examples(
        np.zeros((1, 12, 1), dtype=np.float32),
        np.ones((1, 12), dtype=np.bool_),
        chosen,
        chosen,
        scores,
        np.ones(1, dtype=np.float32),
        np.array([4], dtype=np.int32),
    )
    novelty = Novelty((0.0, 1.0), (0.0, 1.6))
    kept = measure(examples, scores, unknown, np.array([1]), novelty, 0.0)
    assert (kept.share, kept.lists, kept.hits, kept.new_recall, kept.recall) == (0.0, 0.0, 0, 0.0, 0.5)
    moved = measure(examples, scores, unknown, np.array([1]), novelty, 1.0)
    assert (moved.share, moved.lists, moved.hits, moved.new_recall) == (0.1, 1.0, 1, 1.0)
    assert moved.offset == pytest.approx(1.6)
    assert moved.recall == 0.5, "it takes the place of one that was right"
    gains = 1 / np.log2([2, 11]), 1 / np.log2([2, 3, 4, 5])
    assert moved.ndcg == pytest.approx(gains[0].sum() / gains[1].sum())
