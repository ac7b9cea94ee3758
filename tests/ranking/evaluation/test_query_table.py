from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from conf.errors import InputError
from features.data.dataset import Dataset
from ranking.evaluation import query_table
from ranking.evaluation.evaluation import Evaluation
from ranking.evaluation.query_table import (
    LISTS_FILE,
    read_queries,
    slices_of,
    systems_of,
    values_in,
    write_lists,
    write_queries,
)
from ranking.evaluation.report import write_evaluation
from tests.ranking.evaluated import evaluate


@pytest.fixture(scope="module")
def evaluation(dataset: Dataset) -> Evaluation:
    return evaluate(dataset)


@pytest.fixture(scope="module")
def folder(dataset: Dataset, evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_evaluation(tmp_path_factory.mktemp("run") / "evaluation", evaluation, dataset)


def test_a_row_is_a_query(dataset: Dataset, evaluation: Evaluation, folder: Path) -> None:
    frame, queries = read_queries(folder), evaluation.queries
    assert len(frame) == len(queries)
    assert frame["user_id"].to_list() == [dataset.user_ids[user] for user in queries.user]
    assert frame["time"].dt.epoch("s").to_list() == queries.time.tolist()
    assert frame["history"].to_list() == (queries.end - dataset.events.offsets[queries.user]).tolist()
    for row, (start, stop) in enumerate(
        zip(queries.target_offsets, queries.target_offsets[1:], strict=False)
    ):
        ids = [dataset.catalogue.ids[item] for item in queries.targets[start:stop]]
        assert frame["targets"][row].to_list() == ids
        kinds = [dataset.kinds[kind] for kind in queries.target_kinds[start:stop]]
        assert frame["target_events"][row].to_list() == kinds


def test_the_means_of_the_columns_are_those_of_the_result(evaluation: Evaluation, folder: Path) -> None:
    frame, result = read_queries(folder), evaluation.result
    assert systems_of(frame) == list(result["test"])
    for system, metrics in result["test"].items():
        columns = {m: f"{system}/{m}" for m in metrics if f"{system}/{m}" in frame.columns}
        assert {"recall@10", "ndcg@10", "mrr", "map@5", "hit@1"} <= set(columns)
        for metric, column in columns.items():
            assert frame[column].mean() == pytest.approx(metrics[metric], abs=1e-12)


def test_every_slice_of_every_system_can_be_computed_again(evaluation: Evaluation, folder: Path) -> None:
    frame, result = read_queries(folder), evaluation.result
    assert slices_of(frame) == list(result["slices"])
    for name, part in result["slices"].items():
        assert frame[f"slice/{name}"].sum() == part["queries"]
        for system, expected in part["systems"].items():
            values, keep = values_in(frame, system, name)
            assert int(keep.sum()) == part["queries"]
            for metric, mean in expected.items():
                if mean is None:
                    assert len(values[metric]) == 0
                else:
                    assert values[metric].mean() == pytest.approx(mean, abs=1e-12), (name, system)
    whole, keep = values_in(frame, "popularity", ks=(1, 100))
    assert keep.all()
    assert whole["ndcg@100"].tolist() == pytest.approx(frame["popularity/ndcg@100"].to_list())
    with pytest.raises(InputError, match="'popularty' is not in queries.parquet; did you mean 'popularity'"):
        values_in(frame, "popularty")
    with pytest.raises(InputError, match="'head_item' is not in .* did you mean 'head_items'"):
        values_in(frame, "popularity", "head_item")


def test_ranks_are_those_of_the_lists(dataset: Dataset, evaluation: Evaluation, folder: Path) -> None:
    frame, queries = read_queries(folder), evaluation.queries
    for row in range(len(queries)):
        start, stop = queries.target_offsets[row : row + 2]
        listed = evaluation.items[row].tolist()
        ranks = [listed.index(t) + 1 if t in listed else 0 for t in queries.targets[start:stop].tolist()]
        assert frame["shelfwise/ranks"][row].to_list() == ranks
        best = min((rank for rank in ranks if rank), default=None)
        assert frame["shelfwise/first_rank"][row] == best


def test_lists_hold_the_first_ranks_of_every_system(
    dataset: Dataset, evaluation: Evaluation, folder: Path
) -> None:
    lists = pl.read_parquet(folder / LISTS_FILE)
    assert lists["rank"].min() == 1
    assert lists["rank"].max() == 20
    ids = dataset.catalogue.ids
    for row, user in enumerate(evaluation.queries.user):
        own = lists.filter(pl.col("user_id") == dataset.user_ids[user])
        for system, answer in evaluation.answers.items():
            expected = [ids[item] for item in answer.items[row, :20] if item >= 0]
            assert own.filter(pl.col("system") == system)["item_id"].to_list() == expected


def test_long_results_are_written_in_blocks_and_lists_of_a_sample(
    dataset: Dataset, evaluation: Evaluation, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_table, "BLOCK", 7)
    monkeypatch.setattr(query_table, "LIST_QUERIES", 9)
    shown = evaluation.queries, evaluation.answers
    write_queries(tmp_path / "queries.parquet", dataset, evaluation.slices, *shown, "shelfwise")
    assert pq.ParquetFile(tmp_path / "queries.parquet").num_row_groups > 1
    assert read_queries(tmp_path).equals(read_queries(folder))
    assert write_lists(tmp_path / "some.parquet", dataset, *shown, seed=1) == 9
    some = pl.read_parquet(tmp_path / "some.parquet")
    assert some["user_id"].n_unique() == 9
    both = pl.read_parquet(folder / LISTS_FILE).join(
        some.select("user_id").unique(), on="user_id", how="semi"
    )
    assert both.equals(some)


def test_losses_are_null_where_a_system_has_no_stages(evaluation: Evaluation, folder: Path) -> None:
    assert evaluation.result["losses"] == {"valid": None, "test": None}
    assert "lost_at" not in read_queries(folder).columns
    json.dumps(evaluation.result, allow_nan=False)


def test_a_missing_table_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"queries.parquet: missing; `shelfwise evaluate` writes it"):
        read_queries(tmp_path)
