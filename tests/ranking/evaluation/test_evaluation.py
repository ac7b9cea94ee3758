from __future__ import annotations

import json
import weakref
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from conf.errors import InputError
from conf.schema import EvaluationConfig, SplitConfig, SplitKind
from features.data.dataset import BoolArray, Dataset, FloatArray
from features.data.splits import Queries, make_split
from ranking.evaluation import list_providers as module
from ranking.evaluation.evaluation import SystemLists, WindowSystems, evaluate_lists, sample_queries
from ranking.evaluation.metrics import ranking_metrics
from ranking.evaluation.slices import head_items, make_slices, restrict_targets, same_day, target_times
from tests.ranking.baselines.test_registry import make_events
from tests.ranking.evaluated import CONFIG, evaluate, in_both, oracle, split_of
from tests.ranking.evaluation.test_metrics import ask
from tests.synthetic import DAY, EventRow, make_dataset

T0 = 1_600_000_000 // DAY * DAY


def test_the_result_has_every_part_and_is_plain_json(dataset: Dataset, text_vectors: FloatArray) -> None:
    result = evaluate(dataset, vectors=text_vectors).result
    assert list(result) == [
        "protocol",
        "test",
        "valid",
        "slices",
        "cold_catalogue",
        "stages",
        "losses",
        "calibration",
        "stability",
        "shortcuts",
        "confidence",
        "significance",
        "timing",
    ]
    text = json.dumps(result, allow_nan=False)
    assert json.loads(text) == result
    split = split_of(dataset)
    protocol = result["protocol"]
    assert protocol["queries"] == {"valid": len(split.valid), "test": len(split.test)}
    assert protocol["targets"]["test"] == len(split.test.targets)
    assert protocol["split"] == "global_time"
    assert protocol["cut_times"]["test_start"] == str(np.datetime64(split.state_time, "s")) + "Z"
    assert protocol["ks"] == [1, 5, 10, 20, 100]  # 10 is always measured
    assert protocol["seed"] == 3
    assert protocol["exclude_seen"] is False
    assert protocol["dataset_hash"] == "synthetic"
    assert protocol["code_version"] == "0.0-test"
    assert protocol["target_events"] == ["purchase", "click"]
    assert set(protocol["baselines"]) == {"popularity", "item_knn"}
    for window in ("test", "valid"):
        assert list(result[window]) == ["shelfwise", "popularity", "item_knn"]
        for values in result[window].values():
            assert {
                f"{m}@{k}" for m in ("recall", "ndcg", "hit", "mrr", "map") for k in protocol["ks"]
            } <= set(values)
            assert {"mrr", "coverage@10", "novelty@10", "diversity@10", "popularity_lift@10"} <= set(values)


def test_numbers_are_those_of_the_lists(dataset: Dataset) -> None:
    evaluation = evaluate(dataset)
    test = split_of(dataset).test
    lists = oracle(len(dataset.catalogue))(test)
    expected = ranking_metrics(lists.items, test, (10,))
    own = evaluation.result["test"]["shelfwise"]
    assert own["recall@10"] == pytest.approx(expected["recall@10"].mean())
    assert own["ndcg@10"] == pytest.approx(expected["ndcg@10"].mean())
    assert own["hit@1"] == pytest.approx(np.mean(test.user % 4 != 0), abs=0.1)
    assert own["diversity@10"] is None  # no vectors
    np.testing.assert_array_equal(evaluation.items[:, : lists.items.shape[1]], lists.items)
    assert evaluation.items.shape == evaluation.scores.shape == (len(test), 100)
    assert (evaluation.items[:, lists.items.shape[1] :] == -1).all()


def test_same_seed_same_numbers_and_blocks_do_not_matter(
    dataset: Dataset, text_vectors: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def numbers() -> dict[str, object]:
        return {k: v for k, v in evaluate(dataset, vectors=text_vectors).result.items() if k != "timing"}

    first = numbers()
    assert numbers() == first
    monkeypatch.setattr(module, "BLOCK", 7)
    assert json.dumps(numbers()) == json.dumps(first)


def test_stages_account_for_every_target(dataset: Dataset) -> None:
    for window, stages in evaluate(dataset).result["stages"].items():
        sources = stages["sources"]
        half = len(dataset.catalogue) // 2
        assert sources["first_half"]["candidates"] == half
        # The two sources split the catalogue between them.
        together = sources["first_half"]["recall@all"] + sources["last_half"]["recall@all"]
        assert together == pytest.approx(1)
        assert stages["union"]["recall@all"] == stages["filtered"]["recall@all"] == 1
        assert stages["union"]["recall@200"] == 1
        # Candidates come in reverse, the ranker turns them round.
        assert stages["ranked_order"]["recall@10"] > 3 * stages["candidate_order"]["recall@10"], window
        assert stages["ranked_order"]["ndcg@10"] == pytest.approx(
            evaluate(dataset).result[window]["shelfwise"]["ndcg@10"]
        )


def test_intervals_hold_the_mean_and_tests_point_the_right_way(dataset: Dataset) -> None:
    result = evaluate(dataset).result
    for system, intervals in result["confidence"]["test"].items():
        for metric, (low, high) in intervals.items():
            assert low - 1e-9 <= result["test"][system][metric] <= high + 1e-9
    assert set(result["significance"]["test"]) == {"popularity", "item_knn"}
    for baseline, tests in result["significance"]["test"].items():
        for metric in ("recall@10", "ndcg@10", "mrr"):
            own, theirs = result["test"]["shelfwise"][metric], result["test"][baseline][metric]
            assert tests[metric]["difference"] == pytest.approx(own - theirs)
            assert tests[metric]["low"] <= tests[metric]["difference"] <= tests[metric]["high"]
    # The oracle knows three answers in four.
    assert result["significance"]["test"]["popularity"]["mrr"]["p_value"] < 1e-3
    assert result["significance"]["test"]["popularity"]["mrr"]["p_permutation"] < 1e-3


def test_a_baseline_cannot_see_the_test_window(dataset: Dataset) -> None:
    events = dataset.events
    late = np.arange(len(events)) >= split_of(dataset).state_end[events.user]
    assert late.sum() > 20
    items = np.where(late, 0, events.item).astype(np.int32)
    planted = replace(dataset, events=replace(events, item=items))
    # What lists are made of, whatever the right answers are.
    measures = ("coverage@10", "novelty@10", "popularity_lift@10")
    before, after = (evaluate(shop).result["test"] for shop in (dataset, planted))
    for name in ("popularity", "item_knn"):
        assert [after[name][m] for m in measures] == [before[name][m] for m in measures]
    assert after["popularity"]["recall@10"] != before["popularity"]["recall@10"]


def test_leave_one_out_has_no_cut_times_and_fits_once(dataset: Dataset) -> None:
    result = evaluate(dataset, kind=SplitKind.leave_one_out).result
    assert result["protocol"]["split"] == "leave_one_out"
    assert result["protocol"]["cut_times"] is None
    assert result["protocol"]["targets"] == result["protocol"]["queries"]
    for values in result["test"].values():  # one target each: recall is hit, and the rank decides map
        assert values["recall@10"] == values["hit@10"]
        assert values["map@10"] == pytest.approx(values["mrr@10"])


def test_a_part_of_the_system_stands_beside_it(dataset: Dataset) -> None:
    tower = oracle(len(dataset.catalogue), seed=1)
    result = evaluate(dataset, parts={"user_tower": tower}).result
    assert result["protocol"]["parts"] == ["user_tower"]
    for window in ("test", "valid"):
        assert list(result[window]) == ["shelfwise", "user_tower", "popularity", "item_knn"]
    expected = ranking_metrics(tower(split_of(dataset).test).items, split_of(dataset).test, (10,))
    assert result["test"]["user_tower"]["recall@10"] == pytest.approx(expected["recall@10"].mean())
    assert "user_tower" in result["significance"]["test"]
    assert "user_tower" in result["slices"]["tail_items"]["systems"]
    assert "test_seconds" in result["timing"]["user_tower"]


def test_the_system_of_a_window_is_gone_before_the_next_is_made(dataset: Dataset) -> None:
    """Two models at a time would need twice the memory; the measured window comes first."""
    order: list[str] = []
    made: list[weakref.ref[WindowSystems]] = []

    def make(window: str) -> WindowSystems:
        assert all(earlier() is None for earlier in made)
        order.append(window)
        systems = WindowSystems(oracle(len(dataset.catalogue)))
        made.append(weakref.ref(systems))
        return systems

    evaluate_lists(
        {window: partial(make, window) for window in ("valid", "test")},
        dataset,
        split_of(dataset),
        CONFIG,
        exclude_seen=False,
        vectors=None,
        seed=3,
        code_version="",
    )
    assert order == ["test", "valid"]


def test_without_test_only_validation_is_asked(dataset: Dataset) -> None:
    asked: list[int] = []
    whole = split_of(dataset)
    system = oracle(len(dataset.catalogue))

    def watched(queries: Queries, allowed: BoolArray | None = None) -> SystemLists:
        asked.append(int(queries.end.max(initial=0)))
        assert set(queries.user.tolist()) <= set(whole.valid.user.tolist())
        return system(queries, allowed)

    evaluation = evaluate_lists(
        {"valid": lambda: WindowSystems(watched)},
        dataset,
        whole,
        replace(CONFIG, test=False),
        exclude_seen=False,
        vectors=None,
        seed=3,
        code_version="",
    )
    result, both = evaluation.result, evaluate(dataset).result
    assert max(asked) == int(whole.valid.end.max()), "nothing after validation"
    assert "test" not in result
    assert result["protocol"]["measured"] == "valid"
    assert result["protocol"]["queries"] == {"valid": len(whole.valid)}
    assert result["valid"] == both["valid"]  # the same numbers as beside a test
    for part in ("confidence", "significance", "stages", "cold_catalogue"):
        assert list(result[part]) == ["valid"]
    np.testing.assert_array_equal(evaluation.queries.user, whole.valid.user)


def test_sampling_is_seeded_and_keeps_order() -> None:
    queries = ask(*[[i] for i in range(50)])
    drawn = sample_queries(queries, 10, seed=1)
    assert len(drawn) == 10
    assert (np.diff(drawn.user) > 0).all()
    np.testing.assert_array_equal(drawn.user, sample_queries(queries, 10, seed=1).user)
    assert not np.array_equal(drawn.user, sample_queries(queries, 10, seed=2).user)
    assert sample_queries(queries, 0, seed=1) is queries
    assert sample_queries(queries, 50, seed=1) is queries


def test_a_sample_is_measured_and_said(dataset: Dataset) -> None:
    result = evaluate(dataset, config=replace(CONFIG, max_users=9)).result
    assert result["protocol"]["queries"] == {"valid": 9, "test": 9}
    assert result["protocol"]["max_users"] == 9


def test_bad_settings_are_refused_in_one_line(dataset: Dataset) -> None:
    with pytest.raises(InputError, match=r"evaluation.ks: 101 is outside 1..100"):
        evaluate(dataset, config=replace(CONFIG, ks=[10, 101]))
    with pytest.raises(InputError, match=r"evaluation.ks: 0 is outside"):
        evaluate(dataset, config=replace(CONFIG, ks=[0]))
    with pytest.raises(InputError, match="evaluation.bootstrap"):
        evaluate(dataset, config=replace(CONFIG, bootstrap=0))
    with pytest.raises(InputError, match="did you mean 'popularity'"):
        evaluate(dataset, config=replace(CONFIG, baselines=["populrity"]))


def test_a_system_must_answer_every_query(dataset: Dataset) -> None:
    def short(queries: object, allowed: object = None) -> SystemLists:
        nothing = np.zeros((1, 5), dtype=np.int32)
        return SystemLists(nothing, nothing.astype(np.float32), {}, nothing, nothing)

    with pytest.raises(ValueError, match="broadcast|lists for"):
        evaluate_lists(
            in_both(WindowSystems(short)),
            dataset,
            split_of(dataset),
            CONFIG,
            exclude_seen=False,
            vectors=None,
            seed=0,
            code_version="",
        )


def test_nothing_to_test_on_is_an_input_error() -> None:
    rows: list[EventRow] = [("a", "x", "purchase", T0), ("a", "y", "purchase", T0 + 1)]
    dataset = make_dataset(rows, ["x", "y"])
    with pytest.raises(InputError, match="test window holds no relevant event"):
        evaluate(dataset, kind=SplitKind.leave_one_out)


def test_no_validation_queries_give_nulls_not_errors(dataset: Dataset) -> None:
    split = split_of(dataset)
    nothing = replace(split, valid=split.valid.select(np.zeros(len(split.valid), dtype=np.bool_)))
    system = oracle(len(dataset.catalogue))
    whole, result = (
        evaluate_lists(
            in_both(WindowSystems(system)),
            dataset,
            part,
            EvaluationConfig(baselines=["popularity"], bootstrap=10),
            exclude_seen=True,
            vectors=None,
            seed=0,
            code_version="",
        ).result
        for part in (split, nothing)
    )
    assert result["valid"]["shelfwise"]["recall@10"] is None
    assert result["test"] == whole["test"], "test does not depend on validation"
    json.dumps(result, allow_nan=False)


def test_head_items_make_up_half_of_the_events() -> None:
    assert head_items(np.array([5, 1, 3, 1, 0])).tolist() == [True, False, False, False, False]
    assert head_items(np.array([4, 1, 3, 2, 0])).tolist() == [True, False, True, False, False]
    assert not head_items(np.zeros(3, dtype=np.int64)).any()


def test_restricting_targets_drops_queries_left_without() -> None:
    queries = ask([1, 2], [3], [4, 5])
    part, index = restrict_targets(queries, np.array([False, True, False, True, True]))
    assert index.tolist() == [0, 2]
    assert part.user.tolist() == [0, 2]
    assert part.targets.tolist() == [2, 4, 5]
    assert part.target_offsets.tolist() == [0, 1, 3]


def test_target_times_are_the_first_such_event_of_the_window() -> None:
    # user 0: item 5 bought before and again after the cut; a click on 6 comes before its purchase
    events = make_events([[5, 6, 5, 6, 5], [5]], [[1, 2, 3, 4, 5], [9]], [[0, 1, 0, 0, 0], [0]])
    queries = replace(
        ask([5, 6], [5]),
        end=np.array([1, 5]),
        target_kinds=np.array([0, 0, 0], dtype=np.int32),
    )
    assert target_times(events, queries).tolist() == [3, 4, 9]
    clicked = replace(queries, target_kinds=np.array([0, 1, 0], dtype=np.int32))
    assert target_times(events, clicked).tolist() == [3, 2, 9]


def test_same_day_compares_utc_days_with_the_last_known_event() -> None:
    late = DAY - 1
    events = make_events([[0, 1, 2], [3]], [[late, late, DAY], [5]])
    queries = replace(ask([1, 2], [3]), end=np.array([1, 3]))
    same, later = same_day(events, queries)
    assert same.tolist() == [True, False, False]
    assert later.tolist() == [False, True, False]  # the second user has no history: neither


def test_slices_by_hand() -> None:
    rows: list[EventRow] = [
        # `a` is bought four times in training, `b` twice, `c` once, `d` never
        ("u", "a", "purchase", T0),
        ("u", "a", "purchase", T0 + 1),
        ("u", "b", "purchase", T0 + 2),
        ("u", "c", "purchase", T0 + DAY),
        ("u", "a", "purchase", T0 + 10 * DAY),
        ("v", "a", "purchase", T0),
        ("v", "a", "purchase", T0 + 1),
        ("v", "b", "click", T0 + 2),
        ("v", "c", "purchase", T0 + 8 * DAY),
        ("v", "d", "purchase", T0 + 8 * DAY + 5),
        ("w", "c", "click", T0 + 10 * DAY),
    ]
    dataset = make_dataset(rows, ["a", "b", "c", "d"], {"purchase": 1.0, "click": 0.5})
    config = SplitConfig(
        valid_start=str(np.datetime64(T0 + 8 * DAY, "s")),
        test_start=str(np.datetime64(T0 + 8 * DAY + 1, "s")),
        ranker_fraction=0.3,
    )
    split = make_split(dataset, config, [])
    counts = np.array([4, 2, 1, 0], dtype=np.int64)
    slices = {s.name: s for s in make_slices(dataset, split, split.test, counts)}
    assert split.test.targets.tolist() == [0, 3, 2]  # u: a; v: d; w: c

    def users(name: str) -> list[int]:
        return [int(user) for user in slices[name].queries.user]

    assert users("head_items") == [0]
    assert users("tail_items") == [2]
    assert users("cold_items") == [1]
    assert users("new_users") == [2]
    assert users("history_0") == [2]
    assert users("history_1_to_4") == [0, 1]
    assert users("history_5_to_9") == []
    assert users("event_purchase") == [0, 1]
    assert users("event_click") == [2]
    assert users("same_day_as_previous") == [1]
    assert users("later_day") == [0]
    for part in slices.values():
        np.testing.assert_array_equal(split.test.user[part.index], part.queries.user)


def test_slices_cover_every_target_once(dataset: Dataset) -> None:
    result = evaluate(dataset).result
    slices, total = result["slices"], result["protocol"]["targets"]["test"]

    def targets(*names: str) -> int:
        return sum(slices[name]["targets"] for name in names)

    assert targets("head_items", "tail_items", "cold_items") == total
    assert targets(*[name for name in slices if name.startswith("history_")]) == total
    assert targets("event_purchase", "event_click") == total
    empty = slices["history_50_or_more"]
    assert (empty["queries"], empty["systems"]["shelfwise"]["recall@10"]) == (0, None)


def test_day_slices_need_timestamps(dataset: Dataset) -> None:
    timeless = replace(dataset, has_time=False)
    slices = evaluate(timeless, kind=SplitKind.leave_one_out).result["slices"]
    assert "later_day" not in slices
    assert "later_day" in evaluate(dataset, kind=SplitKind.leave_one_out).result["slices"]
