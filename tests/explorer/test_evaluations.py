from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from starlette.testclient import TestClient

from conf.errors import InputError
from encoders.training.curves import Curve, write_curves
from explorer.app import create_app
from explorer.context import ExplorerContext
from explorer.evaluations import Stored, compare, means_of, part_size, worst_cases
from explorer.registry import VIEWS
from ranking.evaluation.query_table import QUERIES_FILE
from tests.ranking.evaluation.page.made_up import a_result, stored_queries

HERE = "http://127.0.0.1:8321"
STAGES = ("filtered", "never_proposed", "approximate_search", "ranked_away", "reranked_away")


def test_two_systems_are_paired_by_user() -> None:
    # recall@10 of own: .5, 1, 0, 0; of knn: .5, 0, 1, 1.
    found = compare(stored_queries(), "own", "knn", "", "recall@10")
    assert found is not None
    assert (found.users, found.ahead, found.behind) == (4, 1, 2)
    assert [found.first, found.second] == pytest.approx([0.375, 0.625])
    assert found.difference == pytest.approx(-0.25)
    assert found.low <= -0.25 <= found.high
    assert 0.5 < found.p_value <= 1
    same = compare(stored_queries(), "own", "own", "", "recall@10")
    assert same is not None
    assert (same.difference, same.p_value, same.ahead, same.behind) == (0.0, 1.0, 0, 0)


def test_a_part_counts_its_own_choices_and_its_own_users() -> None:
    # In `hits` i0 and i2 count: own has both, knn has i0 at place 1.
    found = compare(stored_queries(), "own", "knn", "hits", "recall@10")
    assert found is not None
    assert (found.users, found.first, found.second) == (2, 1.0, 0.5)
    mrr = compare(stored_queries(), "own", "knn", "hits", "mrr")
    assert mrr is not None
    assert mrr.first == pytest.approx((1 / 3 + 1) / 2)
    assert part_size(stored_queries(), "hits") == 2
    assert part_size(stored_queries(), "") == 4
    nobody = stored_queries().with_columns(pl.lit(False).alias("slice/few"))
    assert compare(nobody, "own", "knn", "few", "recall@10") is None
    with pytest.raises(InputError, match="'hots' is not in queries.parquet"):
        compare(stored_queries(), "own", "knn", "hots", "recall@10")


def test_means_of_all_systems_are_ordered_and_have_intervals() -> None:
    best, other = means_of(stored_queries(), ["own", "knn"], "", "recall@10")
    assert (best.name, other.name) == ("knn", "own")
    error = 1.96 * math.sqrt((0.125**2 + 0.625**2 + 2 * 0.375**2) / 3 / 4)
    assert [best.low, best.high] == pytest.approx([0.625 - error, 0.625 + error])
    assert [m.mean for m in means_of(stored_queries().head(0), ["own"], "", "mrr")] == [0.0]


def test_the_worst_come_first_with_what_was_missed_and_where() -> None:
    titles = {"i3": "Kettle"}
    cases, pages = worst_cases(stored_queries(), "own", "knn", "", "recall@10", 1, titles, True)
    assert pages == 1
    # u2 and u3 are 1 behind; u2 has more choices. u0 is level, u1 ahead.
    assert [case.user_id for case in cases] == ["u2", "u3", "u0", "u1"]
    assert [(m.title, m.lost_at) for m in cases[0].missed] == [
        ("Kettle", "never proposed"), ("i4", "never proposed")
    ]  # fmt: skip
    assert [(m.item_id, m.lost_at) for m in cases[2].missed] == [("i1", "ranked away")]
    assert cases[3].missed == []
    swapped, _ = worst_cases(stored_queries(), "knn", "own", "", "recall@10", 1, titles, False)
    assert swapped[0].user_id == "u1"
    assert [(m.item_id, m.lost_at) for m in swapped[0].missed] == [("i2", "")], "stages are of another system"


def test_a_part_s_worst_have_its_choices_alone() -> None:
    cases, _ = worst_cases(stored_queries(), "knn", "own", "hits", "recall@10", 1, {}, False)
    assert [(case.user_id, case.choices) for case in cases] == [("u1", 1), ("u0", 1)]
    assert [[m.item_id for m in case.missed] for case in cases] == [["i2"], []], "i1 is not in the part"


def test_pages_of_the_worst_do_not_overlap_and_end() -> None:
    many = pl.concat(
        [stored_queries().with_columns(user_id=pl.format("{}-{}", pl.lit(n), "user_id")) for n in range(11)]
    )
    first, pages = worst_cases(many, "own", "knn", "", "recall@10", 1, {}, True)
    last, _ = worst_cases(many, "own", "knn", "", "recall@10", 3, {}, True)
    beyond, _ = worst_cases(many, "own", "knn", "", "recall@10", 99, {}, True)
    assert pages == 3
    assert (len(first), len(last)) == (20, 4)
    assert not {c.user_id for c in first} & {c.user_id for c in last}
    assert beyond == last


def test_tables_are_read_again_when_their_files_change(tmp_path: Path) -> None:
    stored = Stored()
    assert stored.queries(tmp_path) is None
    path = tmp_path / QUERIES_FILE
    stored_queries().write_parquet(path)
    first = stored.queries(tmp_path)
    assert first is not None
    assert stored.queries(tmp_path) is first
    stored_queries().head(1).write_parquet(path)
    os.utime(path, ns=(1, 1))
    again = stored.queries(tmp_path)
    assert again is not None
    assert len(again) == 1
    assert stored.titles(None) == {}
    (tmp_path / "dataset").mkdir()
    items = pl.DataFrame({"item_id": ["a", "b"], "Title": ["Cup", None]})
    items.write_parquet(tmp_path / "dataset" / "items.parquet")
    assert stored.titles(tmp_path) == {"a": "Cup"}


def whole_result() -> dict[str, Any]:
    waterfall = {
        "targets": 6, "found": 2, "lost": 4, "no_room": 0,
        "stages": dict(zip(STAGES, (0, 2, 0, 2, 0), strict=True)),
        "per_100_lost": dict(zip(STAGES, (0.0, 50.0, 0.0, 50.0, 0.0), strict=True)),
    }  # fmt: skip
    bins = [{"pairs": 9, "predicted": 0.1, "observed": 0.2, "low": 0.1, "high": 0.3}]
    table = {"ece": 0.0567, "low": 0.05, "high": 0.06, "ece_if_calibrated": 0.01, "bins": bins}
    return a_result(
        losses={"test": {"all": waterfall, "slices": {}}},
        calibration={"test": {"k": 10, "click": table, "purchase": None}},
    )


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a work directory with an evaluation and a learning curve."""
    folder = tmp_path / "evaluation"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(whole_result()))
    stored_queries().write_parquet(folder / QUERIES_FILE)
    (tmp_path / "encoder").mkdir()
    write_curves(tmp_path / "encoder", {"towers": Curve([(10, 2.0)], [(12, 0.25)], "recall@10")})
    return tmp_path


def get(work: Path, path: str = "/evaluation") -> Any:
    context = ExplorerContext(store=work / "artifacts", evaluation=work / "evaluation")
    views = [view for view in VIEWS if view.name in ("start", "evaluation")]
    with TestClient(create_app(context, views=views), base_url=HERE) as client:
        answer = client.get(path)
        while answer.status_code == 202:  # the module is being imported
            answer = client.get(path)
        return answer


def test_the_page_has_every_part_of_its_state(work: Path) -> None:
    text = " ".join(get(work, "/evaluation?slice=hits&a=knn&b=own&metric=mrr").text.split())
    assert "knn beside own: hits" in text
    assert "<option selected>mrr</option>" in text
    assert "Do the probabilities hold?" in text
    assert "expected calibration error 0.0567 (0.0500 to 0.0600)" in text
    assert "Learning curves" in text
    assert "Of 100 lost choices" not in text, "this part has no stages here"
    assert "2 of 6 choices are among the first ten, 4 are lost" in get(work).text
    assert "<script>" not in text
    assert "style=" not in text


def test_charts_are_told_the_numbers_of_the_tables(work: Path) -> None:
    import html
    import re

    told = [json.loads(html.unescape(found)) for found in re.findall(r'data-chart="([^"]*)"', get(work).text)]
    means, lost, reliability, curve = told
    assert means["labels"] == ["knn", "own"]
    assert means["series"][0]["values"] == pytest.approx([0.625, 0.375])
    assert lost["series"][0]["values"] == [0.0, 50.0, 0.0, 50.0, 0.0]
    assert reliability["series"][0]["values"] == [{"x": 10.0, "y": 20.0}]
    assert curve["series"][0]["values"] == [{"x": 12, "y": 0.25}]
    assert curve["series"][1]["values"] == [{"x": 10, "y": 2.0}]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("slice=nowhere", "slice: “nowhere” is none of (all), few, hits."),
        ("a=nobody", "a: “nobody” is none of own, knn."),
        ("metric=guess", "metric: “guess” is none of recall@10"),
        ("page=0", "page: “0” is not a number from 1."),
        ("page=one", "page: “one” is not a number from 1."),
    ],
)
def test_a_wrong_address_says_what_is_possible(work: Path, address: str, message: str) -> None:
    answer = get(work, f"/evaluation?{address}")
    assert answer.status_code == 400
    assert message in answer.text


def test_without_an_evaluation_the_page_names_the_command(work: Path) -> None:
    (work / "evaluation" / "metrics.json").unlink()
    answer = get(work)
    assert answer.status_code == 404
    assert f"shelfwise evaluate work_dir={work} with the settings of the run" in answer.text


def test_an_earlier_version_s_evaluation_is_shown_without_what_it_lacks(work: Path) -> None:
    (work / "evaluation" / QUERIES_FILE).unlink()
    (work / "evaluation" / "metrics.json").write_text(json.dumps(a_result()))
    text = get(work).text
    assert "made by an earlier version" in text
    assert "own puts 20.0%" in text
    assert "Worst shoppers" not in text
