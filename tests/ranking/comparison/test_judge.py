"""A file of lists is measured by the code of the run: the same lists have the same numbers."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from conf.errors import InputError
from conf.schema import EvaluateConfig, PipelineConfig
from ranking.comparison.judge import judge

QUIET = Console(quiet=True)


def asked(run: PipelineConfig, file: Path, **settings: Any) -> EvaluateConfig:
    own = {field.name: getattr(run, field.name) for field in fields(PipelineConfig)}
    return EvaluateConfig(**own, predictions=str(file), **settings)


def test_the_runs_own_lists_have_its_own_numbers_to_the_last_digit(run: PipelineConfig) -> None:
    evaluation = Path(run.work_dir) / "evaluation"
    judge(asked(run, evaluation / "predictions.parquet", system="again"), QUIET)
    own = json.loads((evaluation / "metrics.json").read_text())
    found = json.loads((evaluation / "again" / "metrics.json").read_text())
    assert found["protocol"]["measured"] == own["protocol"]["measured"] == "test"
    assert found["test"]["again"] == own["test"]["shelfwise"]
    assert found["test"]["popularity"] == own["test"]["popularity"]
    for name, part in own["slices"].items():
        assert found["slices"][name]["systems"]["again"] == part["systems"]["shelfwise"]
        assert found["slices"][name]["queries"] == part["queries"]
    for metric, interval in own["confidence"]["test"]["shelfwise"].items():
        assert found["confidence"]["test"]["again"][metric] == pytest.approx(interval, abs=1e-12)
    same = found["significance"]["test"]["shelfwise"]["ndcg@10"]
    assert (same["difference"], same["p_value"]) == (0.0, 1.0)
    theirs = own["significance"]["test"]["popularity"]["ndcg@10"]
    assert found["significance"]["test"]["popularity"]["ndcg@10"]["p_value"] == pytest.approx(
        theirs["p_value"]
    )
    assert found["significance"]["test"]["popularity"]["ndcg@10"]["difference"] == pytest.approx(
        theirs["difference"]
    )
    compared = json.loads((evaluation / "again" / "compare.json").read_text())
    assert compared["likeness"]["same_first_ten"] == 1.0
    assert compared["shoppers"] == {"changed": [], "lost": [], "gained": []}
    columns = pl.read_parquet(evaluation / "queries.parquet")["shelfwise/ndcg@10"]
    assert pl.read_parquet(evaluation / "again" / "queries.parquet")["again/ndcg@10"].equals(
        columns.alias("again/ndcg@10")
    )
    lists = pl.read_parquet(evaluation / "predictions.parquet")
    assert pl.read_parquet(evaluation / "again" / "predictions.parquet").equals(lists)


def test_an_oracle_is_right_and_half_of_it_half(run: PipelineConfig) -> None:
    evaluation = Path(run.work_dir) / "evaluation"
    queries = pl.read_parquet(evaluation / "queries.parquet", columns=["user_id", "targets"])
    perfect = queries.explode("targets").with_columns(
        pl.int_range(1, pl.len() + 1).over("user_id").alias("rank")
    )
    perfect = perfect.rename({"targets": "item_id"})
    perfect.write_csv(Path(run.work_dir) / "oracle.csv")
    assert judge(asked(run, Path(run.work_dir) / "oracle.csv"), QUIET)["test"]["oracle"]["ndcg@100"] == 1.0
    half = queries["user_id"].gather_every(2)
    perfect.filter(pl.col("user_id").is_in(half.implode())).write_csv(Path(run.work_dir) / "half.csv")
    result = judge(asked(run, Path(run.work_dir) / "half.csv"), QUIET)
    assert result["test"]["half"]["hit@10"] == len(half) / len(queries)
    assert result["protocol"]["predictions"]["queries_without_list"] == len(queries) - len(half)


def test_without_an_evaluation_the_settings_decide(run: PipelineConfig, tmp_path: Path) -> None:
    evaluation = Path(run.work_dir) / "evaluation"
    file = tmp_path / "lists.parquet"
    (evaluation / "predictions.parquet").rename(file)
    own = json.loads((evaluation / "metrics.json").read_text())["test"]["shelfwise"]
    (evaluation / "metrics.json").unlink()
    result = judge(asked(run, file), QUIET)
    assert {name: result["test"]["lists"][name] for name in own} == own
    assert result["significance"]["test"] == {}
    assert not (evaluation / "lists" / "compare.json").exists()


def test_a_name_that_the_run_uses_is_refused(run: PipelineConfig) -> None:
    file = Path(run.work_dir) / "evaluation" / "predictions.parquet"
    with pytest.raises(
        InputError, match="has a 'popularity' already; name the other system: system=popularity_2"
    ):
        judge(asked(run, file, system="popularity"), QUIET)
    with pytest.raises(InputError, match="system names the lists"):
        asked(run, file, system="../other")


def test_a_result_of_other_data_is_refused(run: PipelineConfig) -> None:
    metrics = Path(run.work_dir) / "evaluation" / "metrics.json"
    result = json.loads(metrics.read_text())
    result["protocol"]["dataset_hash"] = "another"
    metrics.write_text(json.dumps(result))
    with pytest.raises(InputError, match="measured on other data than the dataset beside it"):
        judge(asked(run, metrics.parent / "predictions.parquet", system="x"), QUIET)
