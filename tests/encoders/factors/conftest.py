from __future__ import annotations

import pytest

from encoders.factors.co_purchase import Factors
from features.data.dataset import Dataset
from tests.encoders.factors.random_shop import random_shop
from tests.synthetic import make_factors


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return random_shop()


@pytest.fixture(scope="module")
def factors(shop: Dataset) -> Factors:
    return make_factors(shop)
