from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import polars as pl
import pytest

import shelfwise
from conf.schema import PipelineConfig
from ranking.bundle.store import current_version


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["shelfwise", *arguments])
    try:
        shelfwise.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_bundle_lists_what_its_evaluation_wrote(
    run: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work, output = run.work_dir, tmp_path / "out"
    arguments = (f"{work}", f"{work}/artifacts", f"output={output}", "guards=[{metric: ndcg@10, loss: 0}]")
    assert call(monkeypatch, "compare", *arguments, "bootstrap=20") == 0
    result = json.loads((output / "compare.json").read_text())
    assert result["likeness"]["same_first_ten"] == 1.0
    assert all(row["difference"] == 0 for row in result["metrics"].values())
    own = json.loads((Path(work) / "evaluation" / "metrics.json").read_text())["test"]["shelfwise"]
    assert {name: row["b"] for name, row in result["metrics"].items()} == {
        name: own[name] for name in result["metrics"]
    }
    assert {name: row["b"] for name, row in result["beyond_accuracy"].items()} == {
        name: own[name] for name in result["beyond_accuracy"]
    }
    printed = capsys.readouterr().out
    assert "held: ndcg@10 loses at most 0" in printed
    assert (output / "compare.html").read_text().startswith("<!doctype html>")


def test_a_broken_guard_is_exit_code_3_and_a_line(
    run: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = pl.read_parquet(Path(run.work_dir) / "evaluation" / "predictions.parquet")
    backwards = lists.with_columns(pl.col("rank").max().over("user_id") + 1 - pl.col("rank"))
    backwards.write_parquet(tmp_path / "backwards.parquet")
    guards = tmp_path / "guards.yaml"
    guards.write_text("- {metric: ndcg@10, loss: 5%}\n- {metric: coverage@10, loss: 100}\n")
    arguments = (run.work_dir, str(tmp_path / "backwards.parquet"), f"output={tmp_path / 'out'}")
    assert call(monkeypatch, "compare", *arguments, f"guards={guards}", "bootstrap=20") == 3
    error = capsys.readouterr().err
    assert error.startswith("shelfwise: broken: ndcg@10 loses at most 5%: ")
    assert error.count("\n") == 1
    assert [g["passed"] for g in json.loads((tmp_path / "out" / "compare.json").read_text())["guards"]] == [
        False,
        True,
    ]


def test_versions_and_folders_name_the_same_bundle(
    run: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Path(run.work_dir) / "artifacts"
    version = current_version(store)
    arguments = (
        f"{store}@{version[-12:]}",
        f"{store}/versions/{version}",
        f"output={tmp_path}",
        "max_users=5",
    )
    assert call(monkeypatch, "compare", *arguments, "bootstrap=20") == 0
    result = json.loads((tmp_path / "compare.json").read_text())
    assert result["a"]["version"] == result["b"]["version"] == version
    assert result["window"]["queries"] == 5


WRONG = {
    "one system": (["{work}"], "compare: 1 systems; name two, the present one first"),
    "nothing there": (["{work}", "none"], "compare: none: no such file or folder; name a store"),
    "an empty folder": (["{work}", "{empty}"], "neither a bundle nor an evaluation is there"),
    "no store": (["{work}", "{empty}@1"], "is no store; a store has a folder versions"),
    "no version": (["{work}", "{work}/artifacts@2001"], "no version is or contains '2001' (there are: "),
    "no metric": (["{work}", "{work}", "metrics=[recal@10]"], "no metric 'recal@10'"),
    "a slice": (["{work}", "{work}", "guards=[{metric: mrr, loss: 1%, slice: new}]"], "is in a slice 'new'"),
    "no dataset": (["{alone}", "{alone}"], "name the work directory that has it: work_dir=DIR"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line(
    evaluated: PipelineConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: str,
) -> None:
    arguments, said = WRONG[case]
    empty, alone = tmp_path / "empty", tmp_path / "alone"
    empty.mkdir()
    if case == "no dataset":
        shutil.copytree(Path(evaluated.work_dir) / "artifacts", alone)
    filled = [
        a.replace("{work}", evaluated.work_dir).replace("{empty}", str(empty)).replace("{alone}", str(alone))
        for a in arguments
    ]
    assert call(monkeypatch, "compare", *filled, f"output={tmp_path / 'out'}", "bootstrap=20") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_run_of_other_data_or_other_queries_is_refused(
    run: PipelineConfig,
    evaluated: PipelineConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    metrics = Path(run.work_dir) / "evaluation" / "metrics.json"
    result = json.loads(metrics.read_text())
    for change, said in (
        ({"dataset_hash": "another"}, "evaluated on another dataset; compare the bundles"),
        ({"max_users": 5, "queries": {"test": 5}}, "evaluated on other queries (test, global_time, 5)"),
    ):
        metrics.write_text(json.dumps({**result, "protocol": {**result["protocol"], **change}}))
        assert (
            call(monkeypatch, "compare", run.work_dir, evaluated.work_dir, f"output={tmp_path / 'out'}") == 2
        )
        assert said in capsys.readouterr().err
