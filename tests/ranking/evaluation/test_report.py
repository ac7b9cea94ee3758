from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from features.data.dataset import Dataset, FloatArray
from ranking.evaluation import report
from ranking.evaluation.evaluation import Evaluation
from ranking.evaluation.page.render import render_report
from ranking.evaluation.page.summary import best_baseline, headline, stars
from ranking.evaluation.report import print_table, write_evaluation
from tests.ranking.evaluated import CONFIG, evaluate

VOID = {"meta", "br", "link", "img", "input", "hr"}


@pytest.fixture(scope="module")
def evaluation(dataset: Dataset, text_vectors: FloatArray) -> Evaluation:
    return evaluate(dataset, vectors=text_vectors)


@pytest.fixture(scope="module")
def page(evaluation: Evaluation) -> str:
    return render_report(evaluation.result)


class Balanced(HTMLParser):
    """Checks that tags close in order and collects what would be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [v or "" for a, v in attrs if a in ("src", "href", "xlink:href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parse(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def shown(result: dict[str, Any], width: int = 160) -> str:
    buffer = io.StringIO()
    print_table(result, Console(file=buffer, width=width, force_terminal=True, color_system="standard"))
    return buffer.getvalue()


def test_files_are_complete_and_agree(evaluation: Evaluation, dataset: Dataset, tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "deep" / "evaluation", evaluation, dataset)
    assert sorted(p.name for p in folder.iterdir()) == [
        "lists.parquet",
        "metrics.json",
        "predictions.parquet",
        "queries.parquet",
        "report.html",
    ]
    assert list(folder.parent.iterdir()) == [folder], "nothing temporary is left"
    private = {path.name for path in folder.iterdir() if path.stat().st_mode & 0o777 == 0o600}
    assert private == {"lists.parquet", "predictions.parquet", "queries.parquet"}, "files with user ids"
    assert json.loads((folder / "metrics.json").read_text()) == evaluation.result
    frame = pl.read_parquet(folder / "predictions.parquet")
    assert frame.columns == ["user_id", "rank", "item_id", "score"]
    assert len(frame) == (evaluation.items >= 0).sum()
    first = frame.filter(pl.col("rank") == 1)
    assert first["user_id"].to_list() == [dataset.user_ids[u] for u in evaluation.queries.user]
    assert first["item_id"].to_list() == [dataset.catalogue.ids[i] for i in evaluation.items[:, 0]]
    one = frame.filter(pl.col("user_id") == first["user_id"][0])
    assert one["rank"].to_list() == list(range(1, len(dataset.catalogue) + 1))
    assert one["score"].is_finite().all()


def test_metrics_can_be_recomputed_from_predictions(
    evaluation: Evaluation, dataset: Dataset, tmp_path: Path
) -> None:
    folder = write_evaluation(tmp_path, evaluation, dataset)
    q = evaluation.queries
    wanted = pl.DataFrame(
        {
            "user_id": [dataset.user_ids[u] for u in np.repeat(q.user, np.diff(q.target_offsets)).tolist()],
            "item_id": [dataset.catalogue.ids[i] for i in q.targets],
        }
    )
    top = pl.read_parquet(folder / "predictions.parquet").filter(pl.col("rank") <= 10)
    hits = wanted.join(top, on=["user_id", "item_id"], how="left")
    recall = hits.group_by("user_id").agg(pl.col("rank").is_not_null().mean())["rank"].mean()
    assert recall == pytest.approx(evaluation.result["test"]["shelfwise"]["recall@10"])


def test_a_failed_write_leaves_the_old_files(
    evaluation: Evaluation, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_evaluation(tmp_path / "evaluation", evaluation, dataset)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def fail(result: object, material: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(report, "render_report", fail)
    with pytest.raises(OSError, match="disk full"):
        write_evaluation(folder, evaluation, dataset)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_writing_twice_gives_the_same_bytes(evaluation: Evaluation, dataset: Dataset, tmp_path: Path) -> None:
    first = write_evaluation(tmp_path / "a", evaluation, dataset)
    second = write_evaluation(tmp_path / "b", evaluation, dataset)
    for name in ("metrics.json", "report.html", "predictions.parquet"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_the_page_is_well_formed_and_loads_nothing(page: str) -> None:
    parsed = parse(page)
    assert parsed.tags.count("svg") == 4
    assert all(target.startswith("#") for target in parsed.loads)
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", page))
    # The names of the SVG vocabularies are never fetched.
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"@import|url\((?!#)", page)
    assert "script" not in parsed.tags


def test_the_page_shows_the_numbers(page: str, evaluation: Evaluation) -> None:
    text = " ".join(parse(page).text)
    result = evaluation.result
    for system, values in result["test"].items():
        assert system in text
        for metric in ("recall@10", "ndcg@10", "mrr", "coverage@10"):
            assert f"{values[metric]:.4f}" in text
        low, high = result["confidence"]["test"][system]["recall@10"]
        assert f"{low:.4f} to {high:.4f}" in text
    assert headline(result) in text
    assert "source: first_half" in text
    assert "cold items" in text or result["slices"]["cold_items"]["queries"] == 0
    assert result["protocol"]["code_version"] in text
    assert result["protocol"]["cut_times"]["test_start"] in text


def test_cold_items_are_shown_where_there_are_any(evaluation: Evaluation) -> None:
    result = json.loads(json.dumps(evaluation.result))
    values = {
        "within": {"recall@10": 0.4321, "ndcg@10": 0.2109},
        "full": {"recall@10": 0.0123, "ndcg@10": 0.0},
    }
    part = {
        "about": "items without an event before validation",
        "items": 33,
        "queries": 12,
        "targets": 15,
        "systems": {"shelfwise": values, "random": values},
        "confidence": {"shelfwise": {"recall@10": [0.3987, 0.4765], "ndcg@10": [0.1, 0.3]}},
    }
    result["cold_catalogue"]["test"] = {"no_training_event": part, "no_event": {**part, "queries": 0}}
    text = " ".join(parse(render_report(result)).text)
    assert "33 items without an event before validation: 12 users chose 15 of them" in text
    assert "0.3987 to 0.4765" in text
    assert "0.0123" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown(result))
    assert "items without an event before validation: 33; 12 queries, 15 targets" in plain
    assert plain.count("0.4321") == 2  # the empty catalogue has no table
    result["cold_catalogue"]["test"]["no_training_event"]["queries"] = 0
    assert "that were never bought" not in render_report(result)


def test_a_result_of_validation_alone_renders(dataset: Dataset, tmp_path: Path) -> None:
    evaluation = evaluate(dataset, config=replace(CONFIG, test=False))
    text = " ".join(parse(render_report(evaluation.result)).text)
    assert "test left unread" in text
    assert f"{evaluation.result['valid']['shelfwise']['recall@10']:.4f}" in text
    assert "valid, global_time" in shown(evaluation.result)
    write_evaluation(tmp_path, evaluation, dataset)


def test_everything_from_outside_is_escaped(dataset: Dataset) -> None:
    nasty = "<script>alert('$x_1$')</script>&"
    result = evaluate(dataset, name=nasty).result
    result["protocol"]["code_version"] = nasty
    result["protocol"]["target_events"] = [nasty]
    result["stages"]["test"]["sources"][nasty] = result["stages"]["test"]["sources"]["first_half"]
    result["slices"][nasty] = result["slices"]["head_items"]
    page = render_report(result)
    parsed = parse(page)
    assert "script" not in parsed.tags
    assert "<script" not in page
    assert sum(nasty in text for text in parsed.text) > 10, "in tables and in plots, dollar signs and all"
    assert nasty in shown(result, width=300)


def test_a_result_read_back_renders_the_same_page(page: str, evaluation: Evaluation) -> None:
    assert render_report(json.loads(json.dumps(evaluation.result))) == page


def test_results_without_baselines_or_vectors_render(dataset: Dataset) -> None:
    result = evaluate(dataset, config=replace(CONFIG, baselines=[], ks=[10])).result
    assert best_baseline(result) is None
    parse(render_report(result))
    assert "baseline" not in headline(result)
    assert "paired t test" not in shown(result)


def made_up(own: float, theirs: float, p_value: float | None) -> dict[str, Any]:
    return {
        "protocol": {"system": "shelfwise", "parts": ["tower"], "measured": "test", "items": 12101},
        "test": {
            "shelfwise": {"recall@10": own},
            "tower": {"recall@10": 0.5},  # part of the system, not a rival
            "knn": {"recall@10": theirs},
            "pop": {"recall@10": 0.01},
        },
        "significance": {"test": {"knn": {"recall@10": {"p_value": p_value}}}},
    }


def test_the_headline_says_better_worse_or_neither() -> None:
    better = headline(made_up(0.12, 0.1, 0.00001))
    assert better == (
        "shelfwise puts 12.0% of what users chose next into the first 10 of 12,101 items. "
        "That is 20% more than the strongest baseline, knn (10.0%; p < .001)."
    )
    assert "10% less than the strongest baseline, knn (10.0%; p = 0.030)" in headline(
        made_up(0.09, 0.1, 0.03)
    )
    assert "not distinguishable from the strongest baseline, knn" in headline(made_up(0.12, 0.1, 0.06))
    assert "not distinguishable" in headline(made_up(0.12, 0.1, None))


@pytest.mark.parametrize(
    ("p", "mark"), [(0.0009, "***"), (0.001, "**"), (0.0099, "**"), (0.01, "*"), (0.05, ""), (None, "")]
)
def test_stars(p: float | None, mark: str) -> None:
    assert stars(p) == mark


def test_the_table_marks_the_best_and_the_differences(evaluation: Evaluation) -> None:
    text = shown(evaluation.result)
    bold = {re.sub(r"\x1b\[[0-9;]*m", "", m).strip(" *") for m in re.findall(r"\x1b\[1m(.*?)\x1b\[0m", text)}
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    result = evaluation.result
    for metric in ("recall@10", "ndcg@10", "hit@10", "mrr", "coverage@10"):
        values = [v[metric] for v in result["test"].values()]
        assert metric in plain
        assert f"{max(values):.4f}" in bold
    weakest = min(v["recall@10"] for v in result["test"].values())
    assert f"{weakest:.4f}" not in bold
    p_value = result["significance"]["test"]["popularity"]["mrr"]["p_value"]
    assert f"{result['test']['popularity']['mrr']:.4f}{stars(p_value)}" in plain
    assert "seen items kept" in plain
