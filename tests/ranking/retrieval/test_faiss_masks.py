from __future__ import annotations

import gc

import faiss
import numpy as np
import pytest

from ranking.retrieval import faiss_masks
from ranking.retrieval.faiss_masks import selected


def test_what_a_mask_allows_is_kept_as_long_as_the_mask() -> None:
    masks = [np.arange(20) % 3 == 0, np.arange(20) % 3 == 0]
    before = len(faiss_masks._CACHE)
    one, other = selected(masks[0]), selected(masks[1])
    assert selected(masks[0]) is one, "another mask is another, even if it is equal"
    assert other is not one, "another mask is another, even if it is equal"
    assert one.count == 7
    assert isinstance(one.selector, faiss.IDSelectorBitmap)
    assert [one.selector.is_member(row) for row in range(20)] == masks[0].tolist()
    assert len(faiss_masks._CACHE) == before + 2
    masks.clear()
    gc.collect()
    assert len(faiss_masks._CACHE) == before


def test_a_new_mask_in_the_place_of_a_former_one_is_not_taken_for_it() -> None:
    for seed in range(200):
        mask = np.random.default_rng(seed).random(10) < 0.5
        assert selected(mask).count == mask.sum()


def test_the_bits_outlive_the_call() -> None:
    mask = np.random.default_rng(0).random(100_000) < 0.5
    selector = selected(mask).selector
    _ = [np.zeros(12_500, dtype=np.uint8) for _ in range(100)]
    assert isinstance(selector, faiss.IDSelectorBitmap)
    assert all(selector.is_member(int(row)) == mask[row] for row in range(0, 100_000, 997))


def test_a_mask_that_has_been_searched_with_cannot_be_changed() -> None:
    mask = np.ones(10, dtype=np.bool_)
    selected(mask)
    with pytest.raises(ValueError, match="read-only"):
        mask[0] = False
