from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from conf.schema import PipelineConfig, SplitConfig, SplitKind
from features.candidates.features import FeatureLayout
from features.data.dataset import Dataset, FloatArray
from features.data.splits import Queries, make_split
from features.data.training_windows import RankerWindow
from ranking.recommender import Recommender
from ranking.sources import SOURCES
from ranking.training.examples import Examples, collect, ndcg_of_scores, query_limits, stack
from ranking.training.train import collect_examples, drawn_windows, held_out_users
from tests.synthetic import history_of, make_factors, make_recommender, random_towers


@pytest.fixture(scope="module")
def recommender(dataset: Dataset, text_vectors: FloatArray) -> Recommender:
    return make_recommender(
        dataset, text_vectors, towers=random_towers(32, 60, 2), factors=make_factors(dataset)
    )


@pytest.fixture(scope="module")
def queries(dataset: Dataset) -> Queries:
    return make_split(dataset, SplitConfig(kind=SplitKind.leave_one_out), []).ranker


def collected(
    recommender: Recommender, dataset: Dataset, queries: Queries, limit: int = 0, seed: int = 0
) -> Examples:
    return collect(recommender, dataset.events, queries, exclude_seen=False, limit=limit, seed=seed)


def relevant(dataset: Dataset, queries: Queries, query: int) -> dict[int, str]:
    part = slice(queries.target_offsets[query], queries.target_offsets[query + 1])
    kinds = [dataset.kinds[k] for k in queries.target_kinds[part]]
    return dict(zip(queries.targets[part].tolist(), kinds, strict=True))


def test_labels_are_the_targets_and_purchases_are_bought(
    recommender: Recommender, dataset: Dataset, queries: Queries
) -> None:
    from features.data.histories import histories_of

    examples = collected(recommender, dataset, queries)
    batch = histories_of(dataset.events, queries)
    candidates = recommender.retrieve(
        batch, query_limits(recommender, dataset.events, queries, False), recommender.encode(batch)
    )[0]
    clicked = bought = 0
    for query in range(len(queries)):
        targets = relevant(dataset, queries, query)
        for place, row in enumerate(candidates.rows[query].tolist()):
            assert examples.real[query, place] == (row >= 0)
            assert examples.chosen[query, place] == (row in targets)
            assert examples.bought[query, place] == (targets.get(row) == "purchase")
        clicked += sum(kind == "click" for kind in targets.values())
        bought += int(examples.bought[query].sum())
    assert clicked > 0
    assert bought > 0
    assert examples.targets.tolist() == [1] * len(queries)
    assert np.array_equal(examples.fused, candidates.fused)
    assert (examples.negative_share == 1).all()


def test_features_are_those_that_serving_computes(
    recommender: Recommender, dataset: Dataset, queries: Queries
) -> None:
    from features.data.histories import histories_of

    examples = collected(recommender, dataset, queries)
    batch = histories_of(dataset.events, queries)
    users = recommender.encode(batch)
    limits = query_limits(recommender, dataset.events, queries, False)
    candidates, _, best = recommender.retrieve(batch, limits, users)
    assert np.array_equal(examples.features, recommender.features(batch, candidates, users, best))


def test_a_limit_keeps_every_positive_and_says_what_share_of_negatives_is_left(
    recommender: Recommender, dataset: Dataset, queries: Queries
) -> None:
    whole, few = collected(recommender, dataset, queries), collected(recommender, dataset, queries, limit=8)
    assert few.real.shape == (len(queries), 8)
    assert np.array_equal(few.chosen.sum(1), whole.chosen.sum(1))
    assert np.array_equal(few.bought.sum(1), whole.bought.sum(1))
    kept = (few.real & ~few.chosen).sum(1)
    np.testing.assert_allclose(few.negative_share, kept / (whole.real & ~whole.chosen).sum(1), rtol=1e-6)
    assert (few.features[~few.real] == 0).all()


def test_the_draw_is_seeded(recommender: Recommender, dataset: Dataset, queries: Queries) -> None:
    first, second = (collected(recommender, dataset, queries, limit=8, seed=s).features for s in (1, 1))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, collected(recommender, dataset, queries, limit=8, seed=2).features)


def test_seen_items_are_no_candidates_where_they_are_excluded(
    recommender: Recommender, dataset: Dataset, queries: Queries
) -> None:
    examples = collect(recommender, dataset.events, queries, exclude_seen=True, limit=0, seed=0)
    names = recommender.layout.names
    assert (examples.features[..., names.index("own_count")] == 0).all()
    limits = query_limits(recommender, dataset.events, queries, True)
    own = {(q, int(i)) for q, user in enumerate(queries.user) for i in history_of(dataset, int(user)).items}
    assert {divmod(int(key), 60) for key in limits.excluded} <= own
    assert len(limits.excluded) > 0


def test_no_queries_make_no_examples(recommender: Recommender, dataset: Dataset, queries: Queries) -> None:
    none = collected(recommender, dataset, queries.select(np.zeros(len(queries), dtype=bool)))
    attributes = recommender.arrays.statistics.attributes.shape[1]
    assert len(none) == 0
    assert none.features.shape[0] == 0
    assert none.features.shape[2] == len(FeatureLayout(SOURCES.names, attributes).names)


def test_blocks_of_queries_do_not_change_the_examples(
    recommender: Recommender, dataset: Dataset, queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ranking.training.examples as module

    whole = collected(recommender, dataset, queries)
    monkeypatch.setattr(module, "BLOCK", 7)
    done: list[int] = []
    parts = collect(
        recommender, dataset.events, queries, exclude_seen=False, limit=0, seed=0, advance=done.append
    )
    assert sum(done) == len(queries)
    assert max(done) == 7
    assert np.array_equal(parts.chosen, whole.chosen)
    assert np.array_equal(parts.real, whole.real)
    np.testing.assert_allclose(parts.features, whole.features, rtol=1e-5, atol=1e-5)


def hand_made(chosen: list[list[int]], real: list[list[int]], targets: list[int]) -> Examples:
    picked = np.array(chosen, dtype=bool)
    zeros = np.zeros(picked.shape, np.float32)
    return Examples(
        zeros[..., None], np.array(real, dtype=bool), picked, picked, zeros, np.ones(len(picked), np.float32),
        np.array(targets, np.int32),
    )  # fmt: skip


def test_ndcg_by_hand() -> None:
    examples = hand_made(
        [[0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], [[1, 1, 1, 0]] * 4, [1, 3, 1, 1]
    )
    scores = np.array([[3, 2, 1, 9], [3, 2, 1, 9], [3, 2, 1, 9], [1, 5, 1, 9]], dtype=np.float32)
    third = 1 / np.log2(4)
    ideal = 1 + 1 / np.log2(3) + third
    assert ndcg_of_scores(examples, scores).tolist() == pytest.approx(
        [1 / np.log2(3), (1 + third) / ideal, 0.0, 1.0], abs=1e-6
    )
    # At k = 1 only the first place counts, and one hit is all that is possible.
    assert ndcg_of_scores(examples, scores, k=1).tolist() == pytest.approx([0, 1, 0, 1])


def test_selected_examples_are_the_chosen_ones() -> None:
    examples = hand_made([[0, 1], [1, 0], [1, 1]], [[1, 1], [1, 0], [1, 1]], [1, 2, 3])
    part = examples.select(np.array([2, 0]))
    assert part.targets.tolist() == [3, 1]
    assert part.chosen.tolist() == [[True, True], [False, True]]
    assert part.real.tolist() == [[True, True], [True, True]]


@pytest.mark.parametrize("max_rows", [3000, 1])
def test_training_lists_share_the_room_there_is(
    trained: PipelineConfig, dataset: Dataset, max_rows: int
) -> None:
    config = replace(trained, ranker=replace(trained.ranker, max_rows=max_rows))
    split = make_split(dataset, config.split, config.evaluation.target_events)
    lists, calibration, valid = collect_examples(config, dataset, split, Console(quiet=True))
    assert lists.real.sum(axis=1).max() == max(max_rows // len(lists), 1)
    assert (lists.negative_share < 1).any()
    assert valid is not None
    # Lists that calibrate and validate are always whole.
    assert (calibration.negative_share == 1).all()
    assert (valid.negative_share == 1).all()


def test_training_lists_are_whole_where_there_is_no_limit(trained: PipelineConfig, dataset: Dataset) -> None:
    config = replace(trained, ranker=replace(trained.ranker, max_rows=0))
    split = make_split(dataset, config.split, config.evaluation.target_events)
    lists, _, _ = collect_examples(config, dataset, split, Console(quiet=True))
    assert (lists.negative_share == 1).all()


def test_calibration_takes_users_with_all_their_lists() -> None:
    user = np.repeat(np.arange(50, dtype=np.int32), np.arange(50) % 7 + 1)
    count = len(user)
    queries = Queries(
        user, np.arange(count), np.zeros(count, np.int64), np.arange(count + 1), user, np.zeros_like(user)
    )
    drawn = held_out_users(queries, np.random.default_rng(0))
    assert 0.1 * count < len(drawn) <= 0.2 * count
    whole = np.bincount(user, minlength=50)
    taken = np.bincount(drawn.user, minlength=50)
    assert np.array_equal(taken[taken > 0], whole[taken > 0]), "a user's other lists must not train"


def test_stacked_examples_keep_their_rows_and_widths_and_empty_the_list() -> None:
    narrow = hand_made([[1, 0], [0, 1]], [[1, 1], [1, 0]], [1, 2])
    wide = hand_made([[0, 0, 1]], [[1, 1, 1]], [4])
    parts = [narrow, wide]
    both = stack(parts)
    assert parts == []
    assert both.chosen.astype(int).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert both.real.astype(int).tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
    assert both.targets.tolist() == [1, 2, 4]
    assert both.features.shape == (3, 3, 1)
    assert both.negative_share.dtype == np.float32


@pytest.mark.parametrize("most", [3, 20, 10_000])
def test_windows_drawn_one_by_one_have_the_queries_of_a_draw_from_all(queries: Queries, most: int) -> None:
    numbers = np.arange(len(queries))
    parts = [queries.select(numbers % 3 > 0), queries.select(numbers[:0]), queries.select(numbers % 2 > 0)]
    nobody = np.zeros(0, dtype=np.int64)
    windows = [RankerWindow(part, nobody, moment, nobody) for moment, part in enumerate(parts)]
    kept, lists, calibration = drawn_windows(iter(windows), most, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    held_out = held_out_users(parts[0], rng)
    assert calibration.user.tolist() == held_out.user.tolist()
    for part, window, drawn in zip(parts, kept, lists, strict=True):
        rest = part.select(~np.isin(part.user, held_out.user))
        expected = rest.select(np.sort(rng.permutation(len(rest))[: max(most // 3, 1)]))
        assert drawn.user.tolist() == expected.user.tolist()
        assert drawn.targets.tolist() == expected.targets.tolist()
        assert len(window.queries) == min(most, len(rest))
    assert [window.time for window in kept] == [0, 1, 2]
