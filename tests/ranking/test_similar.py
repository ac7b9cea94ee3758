"""Items that are like an item: by their vectors, by the neighbours of texts and by their sketches."""

from __future__ import annotations

import numpy as np
import pytest

from features.data.dataset import FloatArray
from ranking import assembly
from ranking.assembly import pca_units, text_neighbours, unit
from ranking.recommender import Recommender
from tests.ranking.requests import ITEMS
from tests.synthetic import random_units


def test_similar_items_by_hand(text_only: Recommender, text_vectors: FloatArray) -> None:
    cosines = text_vectors @ text_vectors[4]
    order = np.argsort(-cosines, kind="stable")
    found, scores = text_only.similar(text_vectors[4:5], 5, np.array([4], np.int32))
    assert found[0].tolist() == [r for r in order if r != 4][:5]
    np.testing.assert_allclose(scores[0], cosines[found[0]], atol=1e-5)
    allowed = np.arange(ITEMS) % 2 == 0
    found, _ = text_only.similar(text_vectors[4:5], 5, np.array([4, 6], np.int32), allowed)
    assert found[0].tolist() == [r for r in order if r % 2 == 0 and r not in (4, 6)][:5]


def test_similar_items_are_padded_when_the_catalogue_has_too_few(
    text_only: Recommender, text_vectors: FloatArray
) -> None:
    found, scores = text_only.similar(text_vectors[:2], ITEMS + 4, np.array([3], np.int32))
    assert found.shape == scores.shape == (2, ITEMS + 4)
    assert (np.sort(found[:, : ITEMS - 1], axis=1) == [r for r in range(ITEMS) if r != 3]).all()
    assert (found[:, ITEMS - 1 :] == -1).all()
    assert (scores[:, ITEMS - 1 :] == -np.inf).all()


def test_text_neighbours_are_others_with_positive_cosine() -> None:
    vectors = random_units(30, 6)
    near = text_neighbours(vectors, 5)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    for item in range(30):
        expected = np.argsort(-cosines[item], kind="stable")[:5]
        assert near.ids[item].tolist() == expected.tolist()
        np.testing.assert_allclose(near.weights[item], np.maximum(cosines[item][expected], 0), atol=1e-5)


def test_text_neighbours_in_blocks_are_those_of_one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = random_units(30, 6)
    whole = text_neighbours(vectors, 5)
    monkeypatch.setattr(assembly, "_ROWS", 7)
    near = text_neighbours(vectors, 5)
    assert np.array_equal(near.ids, whole.ids)
    np.testing.assert_allclose(near.weights, whole.weights, atol=1e-6)


@pytest.mark.parametrize("items", [1, 3])
def test_text_neighbours_of_a_tiny_catalogue_are_padded(items: int) -> None:
    near = text_neighbours(random_units(items, 6), 5)
    assert near.ids.shape == near.weights.shape == (items, 5)
    assert ((near.ids >= 0).sum(1) == items - 1).all()
    assert (near.weights[near.ids < 0] == 0).all()


def test_the_sketch_keeps_cosines_of_centred_texts() -> None:
    vectors = random_units(200, 100)
    centred = unit(vectors - vectors.mean(axis=0))
    reduced = pca_units(vectors)
    assert reduced.shape == (200, 64)
    np.testing.assert_allclose(np.linalg.norm(reduced, axis=1), 1.0, atol=1e-5)
    correlation = np.corrcoef((reduced @ reduced.T).ravel(), (centred @ centred.T).ravel())[0, 1]
    assert correlation > 0.9
    few = random_units(40, 20)
    exact = unit(few - few.mean(axis=0))
    np.testing.assert_allclose(pca_units(few) @ pca_units(few).T, exact @ exact.T, atol=1e-4)
    assert np.isfinite(pca_units(few[:1])).all()
