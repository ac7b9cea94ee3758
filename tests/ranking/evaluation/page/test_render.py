"""The page with every part of a result, as text and as a browser would parse it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from encoders.training.curves import Curve
from features.data.dataset import Dataset, FloatArray
from ranking.evaluation.page.material import Material, Training
from ranking.evaluation.page.render import render_report
from ranking.evaluation.page.shoppers import Listed, Shopper, Worst
from ranking.evaluation.page.text_share import TextShare
from ranking.evaluation.report import write_evaluation
from tests.ranking.evaluated import evaluate
from tests.ranking.evaluation.test_report import parse

STAGES = ("filtered", "never_proposed", "approximate_search", "ranked_away", "reranked_away")
NASTY = "<b>Tin & $x_1$"


def waterfall(found: int, *lost: int) -> dict[str, Any]:
    total = sum(lost)
    return {
        "targets": found + total, "found": found, "lost": total, "no_room": 7,
        "stages": dict(zip(STAGES, lost, strict=True)),
        "per_100_lost": {s: 100 * n / total if total else None for s, n in zip(STAGES, lost, strict=True)},
    }  # fmt: skip


@pytest.fixture(scope="module")
def result(dataset: Dataset, text_vectors: FloatArray) -> dict[str, Any]:
    """Return a measured result with the diagnostics that only a whole pipeline has."""
    made: dict[str, Any] = json.loads(json.dumps(evaluate(dataset, vectors=text_vectors).result))
    own = {"proposed": 50, "only": 31, "proposed_found": 20, "only_found": 17}
    made["losses"] = {
        "test": {
            "search": "approximate",
            "all": waterfall(10, 0, 51, 4, 23, 2),
            "slices": {"head_items": waterfall(3, 0, 8, 0, 2, 0), "empty": waterfall(0, 0, 0, 0, 0, 0)},
            "sources": {"first_half": own},
        }
    }
    bins = [
        {"from": 0.0, "to": 0.1, "pairs": 50, "predicted": 0.05, "observed": 0.04, "low": 0.01, "high": 0.09},
        {"from": 0.1, "to": 0.5, "pairs": 50, "predicted": 0.25, "observed": 0.35, "low": 0.3, "high": 0.41},
    ]
    table = {
        "pairs": 1234, "mean_predicted": 0.15, "mean_observed": 0.195, "ece": 0.0567, "low": 0.05,
        "high": 0.07, "ece_if_calibrated": 0.0123, "ece_if_calibrated_high": 0.02, "bins": bins,
    }  # fmt: skip
    made["calibration"] = {"test": {"k": 10, "click": table, "purchase": None}}
    rbo = {"mean": 0.83, "low": 0.8, "high": 0.86}
    made["stability"] = {
        "test": {
            "queries": 500,
            "event": "click",
            "overlap@10": {"mean": 0.71, "low": 0.69, "high": 0.74},
            "rbo": rbo,
        }
    }
    text = {
        "targets_in_nearest_10": 0.111, "targets_in_nearest_100": 0.222, "by_chance_10": 0.01,
        "by_chance_100": 0.1,
    }  # fmt: skip
    made["shortcuts"] = {
        "test": {
            "same_day": 0.44, "in_history": 0.05, "targets_known_successors": 0.31,
            "targets_known_successors_by_chance": 0.02, "successors_recall@10": 0.0876,
            "mean_successors": 7.25, "median_successors": 3.0, "text": text,
        }
    }  # fmt: skip
    return made


@pytest.fixture(scope="module")
def material() -> Material:
    choices = [Listed(NASTY, 2, True), Listed("Kettle", None, False, "never proposed")]
    shopper = Shopper(
        "Shopper A", "good", 14, [Listed("Cup", note="purchase")], choices[:1], choices, 12, 0.5
    )
    lint: list[dict[str, Any]] = [
        {"severity": "serious", "title": "41 copies", "worth": {"as_is": 0.4, "without": 0.3}},
        {"severity": "note", "title": "little", "worth": None},
    ]
    return Material(
        trainings=[
            Training(
                "towers", Curve([(1, 5.0), (10, 4.0)], [(5, 0.1), (10, 0.3), (15, 0.2)], "recall@10"), "step"
            ),
            Training("ranker_towers", Curve([(1, 5.0)], [], None), "step"),
        ],
        shoppers=[shopper],
        worst=[Worst("W1", 20, 9, 0.0, 0.5, "8 ranked away", [NASTY])],
        text=TextShare(100, 60, 30, 12, 4, 40),
        differences={"head_items": (0.0512, 0.0101, 0.0923), "tail_items": (-0.01, -0.2, 0.1)},
        lint=lint,
    )


@pytest.fixture(scope="module")
def page(result: dict[str, Any], material: Material) -> str:
    return render_report(result, material)


def words(page: str) -> str:
    return " ".join(" ".join(parse(page).text).split())


def test_every_part_is_there_with_its_numbers(page: str) -> None:
    text = words(page)
    for heading in (
        "Systems", "Where are choices lost?", "For whom, and for which items?",
        "What did the texts contribute?", "What to trust, and what not",
        "Do the probabilities hold?", "Learning curves", "Three shoppers", "Worst cases", "Protocol",
    ):  # fmt: skip
        assert heading in text, heading
    assert "7 of all 90 choices had no room" in text
    assert "12 of 100 choices (12.0 %) were proposed by nothing but" in text
    assert "4 of these are among the first ten, 10.0 % of all that are" in text
    assert "These sources proposed 50.0 % of what any source proposed" in text
    assert "+0.0512 +0.0101 to +0.0923" in text
    assert "click 1,234 0.1500 0.1950 0.0567 0.0500 to 0.0700 0.0123 up to 0.0200" in text
    assert "choices that have followed the last item before 31.0% 2.0%" in text
    assert "distinct successors of an item, mean (median) 7.2 (3)" in text
    assert "towers recall@10 0.1000 0.3000 10 0.2000 3" in text
    assert "ranker towers – – – – – 0" in text
    assert "71 % of the first ten remain (69 to 74 %; rank-biased overlap 0.83)" in text
    assert "serious: 41 copies (recall@10 0.4000 as is, 0.3000 without)" in text
    assert "and 10 more" in text
    assert "source: first_half" in text
    assert "44% of the choices fall on the day" in text


def test_per_100_lost_adds_up_in_the_table(page: str) -> None:
    (row,) = re.findall(r"<tr class=\"own\"><th scope=\"row\">all</th>(.*?)</tr>", page)
    cells = re.findall(r"<td>([^<]*)</td>", row)
    assert cells[:2] == ["90", "80"]
    assert [float(cell) for cell in cells[2:]] == pytest.approx([0.0, 63.8, 5.0, 28.8, 2.5], abs=0.051)
    assert '<th scope="row">empty</th>' not in page, "parts without a choice are left out"


def test_corrected_p_values_and_the_detectable_difference_are_shown(
    page: str, result: dict[str, Any]
) -> None:
    tests = result["significance"]["test"]
    if not all("p_holm" in test for by_metric in tests.values() for test in by_metric.values()):
        for by_metric in tests.values():
            for test in by_metric.values():
                test |= {"p_holm": 0.04321, "p_bh": 0.02, "minimum_detectable": 0.0666}
        page = render_report(result)
    text = words(page)
    assert "p, Holm" in text
    assert "detectable" in text
    some = next(iter(tests.values()))["mrr"]
    assert f"{some['minimum_detectable']:.4f}" in text


def test_titles_are_escaped_and_nothing_is_loaded(page: str) -> None:
    assert "<b>" not in page
    assert sum(NASTY in text for text in parse(page).text) == 3
    assert not re.search(r"<script|<link|<img|@import|url\((?!#)|src=", page)


def test_regions_that_scroll_are_reached_by_keyboard_and_named(page: str) -> None:
    regions = re.findall(r"<div class=\"scroll[^>]*>", page)
    assert len(regions) > 8
    assert all('tabindex="0"' in r and 'role="region"' in r and 'aria-label="' in r for r in regions)
    assert page.count("<table") == len(re.findall(r"<table[^>]*>\s*<thead>", page))


def test_colours_are_the_page_s_own_in_plots(page: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert "var(--accent)" in drawn
    assert "#0b6e4f" not in drawn
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_an_earlier_version_s_result_renders_without_the_new_parts(result: dict[str, Any]) -> None:
    old = {k: v for k, v in result.items() if k not in ("losses", "calibration", "stability", "shortcuts")}
    text = words(render_report(old))
    assert "Where are choices lost?" in text
    assert "source: first_half" in text
    assert "Do the probabilities hold?" not in text
    assert "Learning curves" not in text
    assert "Three shoppers" not in text


def test_a_report_has_no_user_s_id_and_is_small(
    dataset: Dataset, text_vectors: FloatArray, tmp_path: Path
) -> None:
    evaluation = evaluate(dataset, vectors=text_vectors)
    folder = write_evaluation(tmp_path / "evaluation", evaluation, dataset)
    page = (folder / "report.html").read_text()
    assert "Three shoppers" in page
    assert not [user for user in dataset.user_ids if re.search(rf"\b{re.escape(user)}\b", page)]
    assert len(page) < 1_000_000
