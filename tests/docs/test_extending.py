"""The code of docs/extending.md runs, and does what the page says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.candidates.features import BLOCKS
from features.data.dataset import Dataset, FloatArray
from ranking.rerank.constraints import CONSTRAINTS
from ranking.rerank.rules import Cap, Rules
from ranking.sources import SOURCES
from ranking.types import Recommendation
from tests.ranking.requests import batch_of, no_limits, real
from tests.synthetic import make_full_recommender, make_recommender, request_of

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def code(number: int) -> dict[str, Any]:
    """Run a Python block of the page and return its names."""
    block = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[number]
    names: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_the_source_proposes_the_cheapest_popular_items(dataset: Dataset, text_vectors: FloatArray) -> None:
    recommender = make_recommender(dataset, text_vectors)
    prices = np.arange(60, dtype=np.float32)[::-1].copy()  # the last six rows are the cheapest tenth
    recommender.arrays = replace(
        recommender.arrays, statistics=replace(recommender.arrays.statistics, log_price=prices)
    )
    recommender.sources = SOURCES.with_source(code(0)["Bargains"]())
    batch = batch_of(dataset, [0, None])
    _, proposals, _ = recommender.retrieve(batch, no_limits(2), recommender.encode(batch))
    order = [row for row in recommender.indexes.by_popularity.tolist() if row >= 54]
    assert real(proposals["bargains"]) == [order, order]
    excluded = replace(request_of(dataset, 0), exclude=np.array([54, 55], np.int32))
    [answer] = recommender.recommend([excluded])
    assert not {54, 55} & {item.row for item in answer.items}


def test_the_feature_group_writes_its_column(dataset: Dataset, text_vectors: FloatArray) -> None:
    recommender = make_full_recommender(dataset, text_vectors)
    recommender.layout = replace(recommender.layout, blocks=(*BLOCKS, code(1)["TEXT_REACH"]))
    batch = batch_of(dataset, [0, 5])
    users = recommender.encode(batch)
    candidates, _, best = recommender.retrieve(batch, no_limits(2), users)
    found = recommender.features(batch, candidates, users, best)[
        :, :, recommender.layout.columns["text_reach"]
    ]
    real_ones = candidates.rows >= 0
    expected = recommender.arrays.text_near.weights[candidates.rows[real_ones]].mean(axis=1)
    np.testing.assert_allclose(found[real_ones], expected, rtol=1e-6)
    assert not found[~real_ones].any()
    # The head was made without the column, and goes on as before.
    assert len(recommender.recommend([request_of(dataset, 0)])[0].items) == 10


def test_the_constraint_holds_in_lists_with_rules(
    dataset: Dataset, text_vectors: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = make_recommender(dataset, text_vectors)
    halves = (np.arange(60) % 2).astype(np.int32)
    request = replace(request_of(dataset, 1, k=10), rules=Rules(caps=(Cap(halves, 10),)))
    [usual] = recommender.recommend([request])
    monkeypatch.setattr("ranking.rerank.slate.CONSTRAINTS", (*CONSTRAINTS, code(2)["Apart"]))
    [answer] = recommender.recommend([request])

    def values(answer: Recommendation) -> list[int]:
        return [int(halves[item.row]) for item in answer.items]

    first = values(usual)[0]
    assert values(usual)[1] == first
    assert values(answer) == [first, 1 - first] * 5
    # Each half keeps the order that its items have by score.
    for half in (0, 1):
        scores = [item.score for item in answer.items if halves[item.row] == half]
        assert scores == sorted(scores, reverse=True)
