from __future__ import annotations

import numpy as np
import pytest

from benchmarks.item_map import quality


def arc(texts: int) -> np.ndarray:
    """Return unit vectors along a quarter of a circle: the nearer in order, the larger the cosine."""
    angles = np.linspace(0, np.pi / 2, texts)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_a_map_in_the_same_order_keeps_every_neighbour() -> None:
    line = np.stack([np.arange(40), np.zeros(40)], axis=1).astype(np.float32)
    assert quality(arc(40), line, k=4) == (1.0, 1.0)


def test_a_wrong_neighbour_costs_by_its_rank() -> None:
    # Six texts in a row, of which the first is drawn between the last two.
    positions = np.array([[5.4, 0], [1, 0], [2.1, 0], [3.3, 0], [4.6, 0], [6, 0]], dtype=np.float32)
    trust, kept = quality(arc(6), positions, k=1, sample=6)
    # On the map: 0 -> 5 (rank 5), 1 -> 2, 2 -> 1, 3 -> 2, 4 -> 0 (3, 5, 2 and 1 are nearer: rank 5), 5 -> 0
    # (rank 5).
    assert kept == pytest.approx(3 / 6)
    assert trust == pytest.approx(1 - 2 * (4 + 4 + 4) / (6 * 1 * (12 - 3 - 1)))
