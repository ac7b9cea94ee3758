from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conf.comparison import Guard
from conf.errors import InputError
from conf.schema import EvaluationConfig, SplitConfig, SplitKind
from features.data.dataset import Dataset
from features.data.splits import make_split
from ranking.comparison.compare import Settings, compare
from ranking.comparison.measured import Measured, measure
from ranking.comparison.page import interval_places, render_page, summary
from ranking.comparison.window import Window, make_window
from ranking.evaluation.significance import paired_test

SETTINGS = Settings(("ndcg@10", "recall@10"), (Guard("ndcg@10", "5%"),), shoppers=3, bootstrap=100)


@pytest.fixture(scope="module")
def window(dataset: Dataset) -> Window:
    split = make_split(dataset, SplitConfig(kind=SplitKind.global_time), [])
    return make_window(dataset, split, EvaluationConfig(exclude_seen=False), 0)


def system(name: str, window: Window, seed: int, right: float) -> Measured:
    """Random lists; a share of the queries has its first target on top."""
    rng = np.random.default_rng(seed)
    lists = np.stack(
        [rng.permutation(len(window.dataset.catalogue))[:20] for _ in range(len(window.queries))]
    )
    for query in np.flatnonzero(rng.random(len(lists)) < right):
        target = window.queries.targets[window.queries.target_offsets[query]]
        lists[query] = [target, *lists[query][lists[query] != target][:19]]
    return measure(name, window, lists.astype(np.int32), np.zeros(lists.shape, np.float32), {"kind": "file"})


def test_the_table_is_that_of_a_paired_test(window: Window) -> None:
    a, b = system("a", window, 1, 0.2), system("b", window, 2, 0.9)
    result = compare(window, a, b, SETTINGS)
    own, other = (s.answer.values["ndcg@10"] for s in (a, b))
    row = result["metrics"]["ndcg@10"]
    expected = paired_test(other[:, None], own[:, None], resamples=100)
    assert row["a"] == pytest.approx(own.mean())
    assert row["difference"] == pytest.approx((other - own).mean())
    assert row["p_value"] == pytest.approx(expected.p_value[0])
    assert row["low"] <= row["difference"] <= row["high"]
    smaller, larger = sorted(r["p_value"] for r in result["metrics"].values())
    assert sorted(r["p_holm"] for r in result["metrics"].values()) == pytest.approx(
        [min(2 * smaller, 1), max(min(2 * smaller, 1), larger)]
    )
    assert result["guards"][0]["outcome"] == "held"
    assert compare(window, b, a, SETTINGS)["guards"][0]["outcome"] == "broken"
    assert compare(window, b, a, SETTINGS)["metrics"]["ndcg@10"]["difference"] == pytest.approx(
        -row["difference"]
    )


def test_slices_weigh_up_to_the_whole(window: Window) -> None:
    a, b = system("a", window, 1, 0.2), system("b", window, 2, 0.9)
    slices = compare(window, a, b, SETTINGS)["slices"]
    whole = a.answer.values["recall@10"].sum()
    lengths = [part for name, part in slices.items() if name.startswith("history_")]
    assert sum(p["queries"] for p in lengths) == len(window.queries)
    assert sum(p["queries"] * p["metrics"]["recall@10"]["a"] for p in lengths) == pytest.approx(whole)


def test_the_same_lists_are_alike_and_nobody_changes(window: Window) -> None:
    a = system("a", window, 1, 0.5)
    result = compare(window, a, a, SETTINGS)
    assert result["likeness"]["overlap@10"]["mean"] == result["likeness"]["same_first_ten"] == 1.0
    assert result["likeness"]["rank_biased_overlap"]["mean"] == 1.0
    assert result["likeness"]["histogram"][-1] == len(window.queries)
    assert result["shoppers"] == {"changed": [], "lost": [], "gained": []}
    assert "not distinguishable" in summary(result)


def test_the_most_changed_come_first_with_both_lists(window: Window) -> None:
    a = system("a", window, 1, 0.0)
    items = a.answer.items.copy()
    items[3, :20] = items[3, :20][::-1]
    target = int(window.queries.targets[window.queries.target_offsets[5]])
    items[5, 0] = target
    b = measure("b", window, items, a.answer.scores, {"kind": "file"})
    shoppers = compare(window, a, b, SETTINGS)["shoppers"]
    users = [window.dataset.user_ids[window.queries.user[query]] for query in (3, 5)]
    assert [one["user_id"] for one in shoppers["changed"]] == users
    assert shoppers["gained"][0]["user_id"] == users[1]
    first = shoppers["changed"][0]
    assert [item["item_id"] for item in first["a"]] == [
        window.dataset.catalogue.ids[r] for r in a.answer.items[3, :10]
    ]
    assert first["a"][0]["other_place"] == 20
    gained = shoppers["gained"][0]["b"][0]
    assert (gained["item_id"], gained["target"]) == (window.dataset.catalogue.ids[target], True)


def test_the_page_has_everything_and_nothing_from_elsewhere(window: Window) -> None:
    a, b = system("<a>", window, 1, 0.2), system("b", window, 2, 0.9)
    result = compare(window, a, b, SETTINGS, ["LEAKAGE: b knows", "mind the gap"])
    page = render_page(result)
    for said in (
        "&lt;a&gt;",
        "LEAKAGE: b knows",
        "mind the gap",
        result["guards"][0]["line"].split(":")[0],
        "history 5 to 9",
    ):
        assert said in page
    assert "<a>" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert summary(result).startswith("B is better than A in ndcg@10 by ")


def test_intervals_are_drawn_on_one_scale() -> None:
    rows: dict[str, dict[str, Any]] = {
        "x": {"low": -0.2, "high": 0.1, "difference": 0.0},
        "y": {"low": None, "high": None, "difference": None},
    }
    assert interval_places(rows) == {
        "x": {"low": 4.0, "high": 118.0, "at": 80.0}, "y": {"low": 80.0, "high": 80.0, "at": 80.0},
    }  # fmt: skip


def test_an_unknown_metric_is_named(window: Window) -> None:
    a = system("a", window, 1, 0.2)
    with pytest.raises(InputError, match=r"no metric 'ndgc@10'; did you mean 'ndcg@10'\?"):
        compare(window, a, a, Settings(("ndgc@10",)))
