from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conf.errors import InputError
from encoders.training.curves import Curve, write_curves
from features.data.dataset import Catalogue, Dataset, Events
from ranking.evaluation.page.material import (
    Material,
    Training,
    gather,
    read_lint,
    slice_difference,
    trainings,
)
from ranking.evaluation.page.shoppers import Listed, examples, worst, worst_order
from ranking.evaluation.page.text_share import TextShare, text_share
from ranking.evaluation.query_table import LISTS_FILE, QUERIES_FILE
from tests.ranking.evaluation.page.made_up import a_result, stored_lists, stored_queries


@pytest.fixture
def shop(dataset: Dataset) -> Dataset:
    """Return four users with five events each on six items with titles."""
    frame = pl.DataFrame({"item_id": [f"i{n}" for n in range(6)], "title": [f"Title {n}" for n in range(6)]})
    frame = frame.with_columns(item_text=pl.col("title"))
    item = np.array([5, 4, 3, 2, 1] * 4, dtype=np.int32)
    events = Events(
        user=np.repeat(np.arange(4, dtype=np.int32), 5),
        item=item,
        kind=np.array([0, 1, 0, 1, 0] * 4, dtype=np.int8),
        time=np.arange(20, dtype=np.int64),
        offsets=np.arange(0, 21, 5, dtype=np.int64),
    )
    return replace(
        dataset, catalogue=Catalogue(frame), events=events, user_ids=["u0", "u1", "u2", "u3"],
        kinds=["purchase", "click"],
    )  # fmt: skip


def test_choices_of_text_sources_alone() -> None:
    # i0: text alone, found; i1: text and the user vector, not found; i2: two text sources, found;
    # i5: another source.
    assert text_share(stored_queries(), "own") == TextShare(
        targets=6, proposed=4, by_text=3, only_text=2, only_text_found=2, found=2
    )
    assert text_share(stored_queries().drop("proposed_by"), "own") is None


def test_the_worst_are_those_the_rival_serves_better_by_choices(shop: Dataset) -> None:
    # u2: 2 choices behind, u3: 1, u0: none but one missed, u1: ahead by one.
    assert worst_order(stored_queries(), "own", "knn")["user_id"].to_list() == ["u2", "u3", "u0", "u1"]
    # Without a rival by missed choices: u2 2, u0 and u3 1 each, u1 none.
    assert worst_order(stored_queries(), "own", None)["user_id"].to_list() == ["u2", "u0", "u3", "u1"]
    first, second, *_ = worst(stored_queries(), shop, "own", "knn")
    assert (first.events, first.chosen, first.own, first.rival) == (1, 2, 0.0, 1.0)
    assert first.stages == "2 never proposed"
    assert first.examples == ["Title 3", "Title 4"]
    assert second.stages == "1 ranked away"
    assert "u2" not in str(first), "no id is shown"


def test_examples_have_history_list_and_choices_by_title(shop: Dataset) -> None:
    good, typical, bad = examples(stored_queries(), stored_lists(), shop, "own", seed=0)
    # Of the three users with a list: u2 is the worst, u0 the middle, u1 the best.
    assert [s.kind for s in (good, typical, bad)] == ["good", "typical", "bad"]
    assert [s.recall for s in (good, typical, bad)] == [1.0, 0.5, 0.0]
    assert good.history == [
        Listed("Title 3", note="purchase"),
        Listed("Title 4", note="click"),
        Listed("Title 5", note="purchase"),
    ]
    assert good.listed == [Listed("Title 2", 1, True), Listed("Title 3", 2, False)]
    assert good.chosen == [Listed("Title 2", 1, True)]
    assert typical.chosen == [Listed("Title 0", 3, True), Listed("Title 1", 12, False, "ranked away")]
    assert bad.chosen == [
        Listed("Title 3", None, False, "never proposed"),
        Listed("Title 4", None, False, "never proposed"),
    ]
    assert (bad.events, len(bad.history), bad.chosen_count) == (1, 1, 2)
    assert not {"u0", "u1", "u2"} & {good.name, typical.name, bad.name}


def test_a_difference_in_a_slice_is_paired_and_counts_its_own_choices() -> None:
    queries = stored_queries()
    # Gaps of recall@10: 0, 1, -1, -1.
    found = slice_difference(queries, "own", "knn")
    error = 1.96 * math.sqrt(((0.25**2 + 1.25**2 + 2 * 0.75**2) / 3) / 4)
    assert found == pytest.approx((-0.25, -0.25 - error, -0.25 + error))
    few = slice_difference(queries, "own", "knn", "few")
    assert few is not None
    assert few[0] == pytest.approx(0.0)
    hits = slice_difference(queries, "own", "knn", "hits")
    assert hits is not None
    assert hits[0] == pytest.approx(0.5), "i0 is found by both, i2 by own alone"
    with pytest.raises(InputError, match="'nobody' is not in queries.parquet"):
        slice_difference(queries, "own", "nobody")
    assert slice_difference(queries.head(1), "own", "knn") is None


def test_curves_come_from_this_version_s_files_or_from_an_earlier_one_s(tmp_path: Path) -> None:
    assert trainings(tmp_path) == []
    (tmp_path / "encoder").mkdir()
    (tmp_path / "ranker").mkdir()
    report = {"stage_one": {"validation_recall": []}, "stage_two": {"validation_recall": [0.1, 0.2]}}
    (tmp_path / "encoder" / "training.json").write_text(json.dumps(report))
    (tmp_path / "ranker" / "training.json").write_text(json.dumps({"trained": False}))
    assert trainings(tmp_path) == [Training("towers", Curve([], [(1, 0.1), (2, 0.2)], "recall@10"), "epoch")]
    curve = Curve([(10, 2.0)], [(12, 0.1)], "recall@10")
    write_curves(tmp_path / "encoder", {"towers": curve})
    assert trainings(tmp_path) == [Training("towers", curve, "step")]


def test_findings_are_ordered_and_a_broken_file_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lint.json"
    assert read_lint(path) == []
    path.write_text(
        json.dumps({"findings": [{"severity": "note"}, {"severity": "serious"}, {"severity": "warning"}]})
    )
    assert [f["severity"] for f in read_lint(path)] == ["serious", "warning", "note"]
    path.write_text("{")
    assert read_lint(path) == []


def test_what_is_not_stored_is_left_out(shop: Dataset, tmp_path: Path) -> None:
    assert gather(tmp_path, a_result(), shop, None) == Material()
    stored_queries().write_parquet(tmp_path / QUERIES_FILE)
    stored_lists().write_parquet(tmp_path / LISTS_FILE)
    whole = gather(tmp_path, a_result(), shop, tmp_path)
    assert len(whole.shoppers) == 3
    assert whole.differences.keys() == {"few", "hits"}
    renamed = a_result()
    renamed["protocol"]["system"] = "knn_of_old"
    renamed["test"]["knn_of_old"] = renamed["test"].pop("own")
    assert gather(tmp_path, renamed, shop, tmp_path) == Material()
