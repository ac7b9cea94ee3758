from __future__ import annotations

import pytest

from features.data.dataset import Dataset, FloatArray
from ranking.recommender import Recommender
from tests.synthetic import make_full_recommender, make_recommender


@pytest.fixture(scope="module")
def recommender(dataset: Dataset, text_vectors: FloatArray) -> Recommender:
    return make_full_recommender(dataset, text_vectors)


@pytest.fixture(scope="module")
def text_only(dataset: Dataset, text_vectors: FloatArray) -> Recommender:
    return make_recommender(dataset, text_vectors)
