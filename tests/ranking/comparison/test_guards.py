from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from conf.comparison import Guard, read_guards
from conf.errors import InputError
from ranking.comparison.guards import broken_lines, judge_guards, margin_interval
from ranking.comparison.paired_slices import PairedSlice

WHOLE: dict[str, dict[str, float | None]] = {
    "coverage@10": {"a": 0.5, "b": 0.48},
    "novelty@10": {"a": 9.0, "b": 9.0},
    "diversity@10": {"a": None, "b": 0.5},
}


def judged(guard: Guard, a: list[float], b: list[float]) -> dict[str, object]:
    values = {"ndcg@10": np.array(a)}, {"ndcg@10": np.array(b)}
    return judge_guards([guard], *values, {}, WHOLE)[0]


def test_an_interval_by_hand() -> None:
    a, b = np.array([0.5, 0.5, 1.0, 0.0]), np.array([0.4, 0.6, 0.8, 0.0])
    # d = b - 0.9 a + 0 = -0.05, 0.15, -0.1, 0: mean 0, sum of squares 0.0350.
    mean, low, high = margin_interval(a, b, Guard("ndcg@10", "10%", confidence=0.9))
    error = math.sqrt(0.035 / 3) / 2
    assert mean == pytest.approx(0.0, abs=1e-12)
    assert high == pytest.approx(1.637744 * error, rel=1e-5)  # t quantile 0.9 with 3 degrees of freedom
    assert low == pytest.approx(-1.637744 * error, rel=1e-5)
    absolute = margin_interval(a, b, Guard("ndcg@10", "0.05", confidence=0.9))
    # d = b - a + 0.05 = -0.05, 0.15, -0.15, 0.05: mean 0.
    assert absolute[0] == pytest.approx(0.0, abs=1e-12)


def test_a_guard_is_broken_held_or_undecided() -> None:
    rng = np.random.default_rng(0)
    a = rng.random(2000)
    guard = Guard("ndcg@10", "2%")
    assert judged(guard, a.tolist(), (0.9 * a).tolist())["outcome"] == "broken"
    assert judged(guard, a.tolist(), (0.999 * a).tolist())["outcome"] == "held"
    noise = rng.normal(0, 0.4, 2000)
    unsure = judged(guard, a.tolist(), (a + noise - noise.mean() - 0.01).tolist())
    assert unsure["outcome"] == "undecided"
    assert unsure["passed"] is True
    assert "too few queries to tell" in str(unsure["line"])
    strict = judged(
        Guard("ndcg@10", "2%", undecided="reject"), a.tolist(), (a + noise - noise.mean() - 0.01).tolist()
    )
    assert strict["passed"] is False
    assert broken_lines([strict]) == [strict["line"]]


def test_the_same_lists_hold_a_guard_without_any_margin() -> None:
    found = judged(Guard("ndcg@10", "0"), [0.2, 0.4, 0.4], [0.2, 0.4, 0.4])
    assert (found["outcome"], found["passed"], found["margin"]) == ("held", True, 0.0)
    assert judged(Guard("ndcg@10", "0"), [0.2, 0.4], [0.1, 0.3])["outcome"] == "broken", "a constant loss"


def test_one_query_decides_nothing() -> None:
    assert judged(Guard("ndcg@10", "0"), [1.0], [0.0])["outcome"] == "undecided"


def test_a_guard_has_its_error_rates() -> None:
    """At the limit itself, both wrong decisions happen in 1 - confidence of the samples."""
    rng = np.random.default_rng(1)
    guard = Guard("ndcg@10", "0.1", confidence=0.9)
    outcomes = []
    for _ in range(1000):
        a = rng.random(60)
        b = a - 0.1 + rng.normal(0, 0.2, 60)  # the true loss is the limit
        outcomes.append(judged(guard, a.tolist(), b.tolist())["outcome"])
    spread = 3 * math.sqrt(0.1 * 0.9 / 1000)
    assert outcomes.count("broken") / 1000 == pytest.approx(0.1, abs=spread)
    assert outcomes.count("held") / 1000 == pytest.approx(0.1, abs=spread)
    assert stats.t.ppf(0.9, 59) == pytest.approx(1.296, abs=1e-3)


def test_slices_and_metrics_of_all_lists() -> None:
    part = PairedSlice(
        "cold", 3, {"recall@10": np.array([0.5, 0.5, 0.5])}, {"recall@10": np.array([0.1, 0.1, 0.1])},
        np.arange(3),
    )  # fmt: skip
    same = {"recall@10": np.ones(5)}
    guards = [
        Guard("recall@10", "5%"), Guard("recall@10", "5%", slice="cold"), Guard("coverage@10", "5%"),
        Guard("coverage@10", "0.01"), Guard("diversity@10", "1%"),
    ]  # fmt: skip
    found = judge_guards(guards, same, same, {"cold": part}, WHOLE)
    assert [f["outcome"] for f in found] == ["held", "broken", "held", "broken", "undecided"]
    assert found[1]["queries"] == 3
    assert "recall@10 on cold loses at most 5%: 0.5000 -> 0.1000 (-0.4000, -80.0%)" in found[1]["line"]


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        (Guard("ndgc@10", "1%"), "no metric 'ndgc@10'; did you mean 'ndcg@10'?"),
        (
            Guard("ndcg@10", "1%", slice="cold_item"),
            "no query is in a slice 'cold_item'; did you mean 'cold_items'?",
        ),
        (Guard("coverage@10", "1%", slice="cold_items"), "no metric 'coverage@10'"),
    ],
)
def test_a_guard_of_something_unknown(guard: Guard, said: str) -> None:
    part = PairedSlice("", 1, {"recall@10": np.ones(2)}, {"recall@10": np.ones(2)}, np.arange(2))
    with pytest.raises(InputError) as error:
        judge_guards([guard], {"ndcg@10": np.ones(2)}, {"ndcg@10": np.ones(2)}, {"cold_items": part}, WHOLE)
    assert said in str(error.value)


def test_guards_are_read_from_a_list_or_a_file(tmp_path: Path) -> None:
    entries = [
        {"metric": "ndcg@10", "loss": "2%"},
        {"metric": "recall@10", "loss": 0.005, "slice": "cold_items"},
    ]
    found = read_guards(entries, "guards")
    assert [(g.metric, g.relative, g.absolute, g.slice) for g in found] == [
        ("ndcg@10", 0.02, 0.0, "all"), ("recall@10", 0.0, 0.005, "cold_items"),
    ]  # fmt: skip
    file = tmp_path / "guards.yaml"
    file.write_text("- {metric: ndcg@10, loss: 2%}\n- {metric: recall@10, loss: 0.005, slice: cold_items}\n")
    assert read_guards(str(file), "guards") == found
    assert read_guards(None, "guards") == ()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("none.yaml", "publish.gate: no such file: none.yaml"),
        ([], "publish.gate: expected a list of guards"),
        ({"metric": "ndcg@10"}, "publish.gate: expected a list of guards"),
        (["ndcg@10"], "publish.gate, guard 1: expected a mapping"),
        ([{"metric": "ndcg@10"}], "publish.gate, guard 1: loss is missing"),
        ([{"metric": "ndcg@10", "los": 1}], "publish.gate, guard 1: unknown key 'los'; did you mean 'loss'?"),
        ([{"metric": "ndcg@10", "loss": "much"}], "publish.gate, guard 1: loss: much must be a number"),
        ([{"metric": "ndcg@10", "loss": "-1%"}], "publish.gate, guard 1: loss: -1% must be a number"),
        ([{"metric": "ndcg@10", "loss": "100%"}], "publish.gate, guard 1: loss: 100% must be below 100%"),
        ([{"metric": "n", "loss": "1%", "confidence": 95}], "guard 1: confidence: 95 must lie in 0.5..1"),
        (
            [{"metric": "n", "loss": "1%", "confidence": "high"}],
            "guard 1: confidence: 'high' is not a number",
        ),
        ([{"metric": "n", "loss": "1%", "undecided": "maybe"}], "'maybe' must be accept or reject"),
    ],
)
def test_a_guard_that_cannot_be_read(value: object, said: str) -> None:
    with pytest.raises(InputError) as error:
        read_guards(value, "publish.gate")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
