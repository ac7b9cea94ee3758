from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from conf.schema import IndexConfig, SplitKind
from features.data.dataset import Dataset, FloatArray
from ranking.evaluation.losses import (
    Outcome,
    TargetPaths,
    loss_line,
    loss_summary,
    source_shares,
    target_outcomes,
    waterfall,
)
from ranking.evaluation.metrics import target_ranks
from ranking.evaluation.offline import offline_system
from ranking.recommender import Recommender
from ranking.retrieval.faiss_index import VectorIndex
from ranking.scoring.novelty import Novelty
from ranking.scoring.ranker import Ranker
from tests.ranking.evaluated import split_of
from tests.ranking.evaluation.test_metrics import ask, rows
from tests.synthetic import make_recommender, random_towers


def test_ranks_of_targets_by_hand() -> None:
    queries = ask([7, 3, 9], [7], [])
    # targets need not be sorted; a repeated item counts at its first rank; padding is never a target
    found = target_ranks(rows([9, 3, 9, -1], [3, -1, 7, 7], [7, 3, 9, 1]), queries)
    assert found.tolist() == [0, 2, 1, 3]
    assert target_ranks(np.zeros((3, 0), dtype=np.int32), queries).tolist() == [0, 0, 0, 0]


def test_each_target_is_lost_at_the_first_stage_that_explains_it() -> None:
    # one query with seven targets
    queries = ask([1, 2, 3, 4, 5, 6, 7])
    others = list(range(100, 109))
    final = rows([1, *others, 2, 6])  # 1 is shown; 2 and 6 are behind the tenth place
    by_head = rows([6, 1, *others])  # the ranking head alone has 6 among the first ten
    union = rows([1, 2, 6, *others])
    permitted = np.array([True, True, False, True, True, True, False])
    found_exactly = np.array([False, False, True, True, False, False, False])
    outcomes = target_outcomes(queries, final, by_head, union, permitted, found_exactly)
    assert [Outcome(code).name for code in outcomes] == [
        "found",
        "ranked_away",
        "filtered",  # not permitted, whatever a search would find
        "approximate_search",
        "never_proposed",
        "reranked_away",
        "filtered",
    ]
    assert waterfall(outcomes, np.zeros(7, dtype=np.int64)) == {
        "targets": 7,
        "found": 1,
        "lost": 6,
        "no_room": 0,
        "stages": {
            "filtered": 2,
            "never_proposed": 1,
            "approximate_search": 1,
            "ranked_away": 1,
            "reranked_away": 1,
        },
        "per_100_lost": {
            "filtered": pytest.approx(100 * 2 / 6),
            "never_proposed": pytest.approx(100 / 6),
            "approximate_search": pytest.approx(100 / 6),
            "ranked_away": pytest.approx(100 / 6),
            "reranked_away": pytest.approx(100 / 6),
        },
    }


def test_losses_in_one_line() -> None:
    never = Outcome.never_proposed
    outcomes = np.array([Outcome.found, never, never, Outcome.approximate_search, Outcome.filtered], np.int8)
    assert loss_line(waterfall(outcomes, np.zeros(5, dtype=np.int64))) == (
        "4 of 5 targets are not in the first 10; of 100 lost: 25 excluded by the list's limits, "
        "50 never proposed, 25 lost to approximate search"
    )
    assert loss_line(waterfall(outcomes[:1], np.zeros(1, dtype=np.int64))) == (
        "0 of 1 targets are not in the first 10"
    )


def test_targets_beyond_the_tenth_of_a_query_have_no_room() -> None:
    outcomes = np.full(15, Outcome.ranked_away, dtype=np.int8)
    owners = np.array([0] * 12 + [2] * 3, dtype=np.int64)
    assert waterfall(outcomes, owners)["no_room"] == 2
    nothing = waterfall(outcomes[:0], owners[:0])
    assert (nothing["targets"], nothing["lost"], nothing["no_room"]) == (0, 0, 0)
    assert set(nothing["per_100_lost"].values()) == {None}


def test_sources_are_credited_for_what_they_alone_proposed() -> None:
    outcomes = np.array([Outcome.found, Outcome.found, Outcome.ranked_away, Outcome.never_proposed], np.int8)
    paths = TargetPaths(outcomes, np.array([0b101, 0b100, 0b001, 0], np.int16), ("a", "b", "c"), True)
    assert source_shares(paths) == {
        "a": {"proposed": 2, "only": 1, "proposed_found": 1, "only_found": 0},
        "c": {"proposed": 2, "only": 1, "proposed_found": 2, "only_found": 1},
    }
    both = TargetPaths.joined([paths, replace(paths, exact=False)])
    assert len(both.outcomes) == 8
    assert both.exact is False
    assert loss_summary(None, ask([1]), {}) is None


@pytest.fixture(scope="module")
def recommender(dataset: Dataset, text_vectors: FloatArray) -> Recommender:
    towers = random_towers(text_vectors.shape[1], len(dataset.catalogue), len(dataset.kinds))
    return make_recommender(dataset, text_vectors, towers=towers)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_the_stages_of_a_real_pipeline_are_true(
    recommender: Recommender, dataset: Dataset, exclude_seen: bool
) -> None:
    queries = split_of(dataset, SplitKind.global_time).test
    lists = offline_system(recommender, dataset.events, exclude_seen)(queries)
    paths = lists.paths
    assert paths is not None
    assert paths.exact
    owners = np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets))
    for target, (query, item) in enumerate(zip(owners.tolist(), queries.targets.tolist(), strict=True)):
        history = dataset.events.item[dataset.events.offsets[queries.user[query]] : queries.end[query]]
        outcome = Outcome(paths.outcomes[target])
        proposed = {name for name, found in lists.sources.items() if item in found[query]}
        if item in lists.items[query, :10]:
            assert outcome is Outcome.found
        elif exclude_seen and item in history:
            assert outcome is Outcome.filtered
        elif not proposed:
            assert outcome is Outcome.never_proposed
        else:  # without novelty and diversity the list is the head's order
            assert outcome is Outcome.ranked_away
        mask = int(paths.proposed_by[target])
        assert {n for bit, n in enumerate(paths.sources) if mask >> bit & 1} == proposed
    summary = loss_summary(paths, queries, {})
    assert summary is not None
    assert sum(summary["all"]["stages"].values()) == summary["all"]["lost"]
    assert (summary["all"]["stages"]["filtered"] > 0) is exclude_seen


def test_what_approximate_search_loses_is_found_by_really_searching_exactly(
    dataset: Dataset, text_vectors: FloatArray
) -> None:
    towers = random_towers(text_vectors.shape[1], len(dataset.catalogue), len(dataset.kinds))
    exact = make_recommender(dataset, text_vectors, towers=towers)
    # One list of sixteen is probed: most of the nearest items are never compared.
    rough = VectorIndex.build(exact.arrays.item_vectors, IndexConfig(factory="IVF16,Flat", nprobe=1))
    coarse = make_recommender(dataset, text_vectors, towers=towers)
    coarse.indexes = replace(coarse.indexes, items=rough)
    only = replace(
        exact.config, user_vector=8, item_to_item=0, text_neighbours=0, repeat=0, popular=0,
        co_purchase=0, new_items=0,
    )  # fmt: skip
    exact.config = coarse.config = only
    queries = split_of(dataset).test
    found, lost = (offline_system(r, dataset.events, False)(queries) for r in (exact, coarse))
    assert found.paths is not None
    assert lost.paths is not None
    assert found.paths.exact
    assert not lost.paths.exact
    would_be = target_ranks(found.union, queries) > 0
    was = target_ranks(lost.union, queries) > 0
    missed = lost.paths.outcomes == Outcome.approximate_search
    assert missed.any()
    np.testing.assert_array_equal(missed, would_be & ~was)
    assert not (found.paths.outcomes == Outcome.approximate_search).any()
    assert coarse.indexes.exact() is not coarse.indexes
    assert exact.indexes.exact() is exact.indexes


def test_novelty_and_diversity_are_charged_for_what_they_move_out(
    dataset: Dataset, text_vectors: FloatArray
) -> None:
    recommender = make_recommender(dataset, text_vectors)
    torch.manual_seed(0)
    recommender.ranker = Ranker(recommender.layout.names, [4]).eval()
    queries = split_of(dataset).test

    def outcomes(diversity: float = 0.0) -> np.ndarray:
        lists = offline_system(recommender, dataset.events, False, diversity=diversity)(queries)
        assert lists.paths is not None
        return lists.paths.outcomes

    plain = outcomes()
    assert not (plain == Outcome.reranked_away).any()
    diverse = outcomes(0.9)
    moved = diverse == Outcome.reranked_away
    assert moved.any()
    assert (plain[moved] == Outcome.found).all()
    # Six items count as new and are lifted above all others, so that they displace only these.
    recommender.untrained = np.arange(len(dataset.catalogue)) % 10 == 0
    recommender.novelty, recommender.novelty_budget = Novelty((0.0, 1.0), (0.0, 1e6)), 1.0
    pushed = outcomes()
    moved = pushed == Outcome.reranked_away
    assert moved.any()
    assert (plain[moved] == Outcome.found).all()
    assert (queries.targets[moved] % 10 != 0).all()
    for found in (plain, diverse, pushed):  # the stages before the head do not change
        np.testing.assert_array_equal(found == Outcome.never_proposed, plain == Outcome.never_proposed)
