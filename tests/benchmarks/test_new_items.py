from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from pathlib import Path

import polars as pl
import pytest

from benchmarks.new_items import command as new_items
from benchmarks.new_items.cut import WEEK
from conf.schema import PipelineConfig


def shop_with_new_items(dataset: Path, run: Path) -> Path:
    """Copy a dataset, three of its items sold in the last three weeks alone."""
    shutil.copytree(dataset, run / "dataset")
    path = run / "dataset" / "events.parquet"
    events = pl.read_parquet(path)
    recent = pl.col("timestamp") > pl.col("timestamp").max() - 3 * WEEK
    best = events.filter(recent).group_by("item_id").len().sort("len", "item_id", descending=True)
    new = pl.col("item_id").is_in(best["item_id"].head(3).implode())
    events.filter(recent | ~new).write_parquet(path)
    return run


def test_a_replay_sees_every_event_and_trains_on_none_of_them(
    trained: PipelineConfig,
    quick_settings: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = shop_with_new_items(Path(trained.work_dir) / "dataset", tmp_path / "shop")
    arguments = [
        "--run",
        str(run),
        "--weeks",
        "3",
        "--lists",
        "12",
        "--novelty",
        "0.1",
        "--set",
        "threads=1",
        *quick_settings,
    ]
    monkeypatch.setattr(sys, "argv", ["new_items", *arguments])
    assert new_items.main() == 0, capsys.readouterr().out
    folder = run / "benchmarks" / "replay-3-weeks"
    cut = json.loads((folder / "cut.json").read_text())
    result = json.loads((folder / "present" / "replay.json").read_text())
    replayed = pl.read_parquet(folder / "replayed.parquet")
    learned = pl.read_parquet(folder / "present" / "dataset" / "events.parquet")
    assert learned["timestamp"].max() < cut["time"] <= replayed["timestamp"].min()
    assert result["rejects"] == {}
    assert result["baskets"] == 12
    assert result["new_items"] == cut["new_items"] == 3
    assert list(result["arms"]) == ["as served", "novelty 0.1", "novelty 0", "popularity slot"]
    # The state of the server holds what it was told and, of before the cut, the histories of the bundle.
    with sqlite3.connect(folder / "present" / "replay.sqlite") as state:
        (stored,) = state.execute("SELECT count(*) FROM events").fetchone()
    assert len(replayed) == cut["replayed_events"]
    assert stored == cut["trained_events"] + cut["replayed_events"]


def test_a_run_without_a_dataset_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, fault in ((["--storefront"], "nothing is published there"), ([], "no dataset; run")):
        monkeypatch.setattr(sys, "argv", ["new_items", "--run", str(tmp_path), *flags])
        assert new_items.main() == 2
        assert fault in capsys.readouterr().out.replace("\n", " ")
    (tmp_path / "before.json").write_text(json.dumps({"rows": []}))
    monkeypatch.setattr(
        sys, "argv", ["new_items", "--run", str(tmp_path), "--before", str(tmp_path / "before.json")]
    )
    assert new_items.main() == 2
    assert "there are no arms" in capsys.readouterr().out.replace("\n", " ")
