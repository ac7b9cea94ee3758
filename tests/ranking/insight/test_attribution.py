"""Shapley values: hand-computed games, the axioms, and additivity on a ranking head."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from features.data.dataset import Dataset
from ranking.insight.attribution import MOST_GROUPS, REST, attribute, attribution, shapley
from ranking.insight.standing import scored_with
from ranking.recommender import Recommender
from ranking.scoring.ranker import Ranker
from ranking.stages import Stages
from tests.synthetic import request_of


def test_two_players_share_what_they_win_together() -> None:
    # v(none) 1, v(a) 2, v(b) 4, v(a, b) 9: a adds 1 first or 5 last, b 3 first or 7 last.
    np.testing.assert_allclose(shapley(np.array([1.0, 2.0, 4.0, 9.0])), [3.0, 5.0])


def test_values_are_the_mean_over_all_orders_of_joining() -> None:
    values = np.random.default_rng(0).normal(size=16)
    expected = np.zeros(4)
    orders = list(permutations(range(4)))
    for order in orders:
        inside = 0
        for player in order:
            expected[player] += (values[inside | 1 << player] - values[inside]) / len(orders)
            inside |= 1 << player
    np.testing.assert_allclose(shapley(values), expected)


def linear_head(weights: list[float]) -> Ranker:
    """Return a head whose score is the weighted sum of standardised features, within 4 deviations."""
    ranker = Ranker([f"f{n}" for n in range(len(weights))], [2])
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.zero_()
        ranker.direct.weight[0, len(weights) :] = torch.tensor(weights)
    return ranker.eval()


def test_a_linear_head_gives_each_group_its_own_part() -> None:
    ranker = linear_head([2.0, -1.0, 0.5, 3.0])
    groups = {
        "first": np.array([0, 1]), "second": np.array([2]), "equal": np.array([3]),
    }  # fmt: skip
    item = np.array([1.0, 1.0, -2.0, 0.5], np.float32)
    background = np.array([[0.0, 0.0, 0.0, 0.5], [1.0, 2.0, 0.0, 0.5]], np.float32)
    found = attribution(ranker, groups, item, background)
    # means of the background: .5, 1, 0; so 2 (1 - .5) - (1 - 1) = 1, and .5 (-2 - 0) = -1
    assert {share.label: round(share.points, 5) for share in found.shares} == {"first": 1.0, "second": -1.0}
    assert {share.label: round(share.deleted, 5) for share in found.shares} == {"first": 1.0, "second": -1.0}
    assert found.score == pytest.approx(2 - 1 - 1 + 1.5)
    assert found.baseline == pytest.approx(found.score)
    first = next(share for share in found.shares if share.label == "first")
    assert first.features == (("f0", 1.0, 0.5), ("f1", 1.0, 1.0))


def test_more_groups_than_can_be_told_apart_exactly_are_explained_as_one() -> None:
    count = MOST_GROUPS + 5
    ranker = linear_head([1.0] * count)
    groups = {f"g{n}": np.array([n]) for n in range(count)}
    item, background = np.ones(count, np.float32), np.zeros((1, count), np.float32)
    found = attribution(ranker, groups, item, background)
    shares = {share.label: share.points for share in found.shares}
    assert len(shares) == MOST_GROUPS
    assert shares[REST] == pytest.approx(count - MOST_GROUPS + 1)
    assert sum(shares.values()) == pytest.approx(count)


def test_shares_of_a_list_add_up_to_the_score(recommender: Recommender, dataset: Dataset) -> None:
    for user in range(8):
        for row in (user, 59 - user):
            seen: list[Stages] = []
            recommender.recommend([request_of(dataset, user)], seen.append)
            scored = scored_with(recommender, seen[0], row, 1)
            found = attribute(recommender, seen[0], scored, row)
            assert found is not None
            points = sum(share.points for share in found.shares)
            assert found.baseline + points == pytest.approx(found.score, abs=1e-6)
            head = scored.ranked.head[0, scored.columns[0]]
            assert found.score == pytest.approx(float(head), abs=1e-4)
            labels = [share.label for share in found.shares]
            assert set(labels) <= set(recommender.layout.groups)
            assert "the history as a whole" not in labels  # the same for every candidate


def test_without_a_ranking_head_there_is_nothing_to_divide(text_only: Recommender, dataset: Dataset) -> None:
    seen: list[Stages] = []
    text_only.recommend([request_of(dataset, 0)], seen.append)
    assert attribute(text_only, seen[0], scored_with(text_only, seen[0], 3, 1), 3) is None


def test_every_feature_is_in_one_group(recommender: Recommender) -> None:
    named = [name for names in recommender.layout.groups.values() for name in names]
    assert sorted(named) == sorted(recommender.layout.names)
