"""Paths and shoppers that make trouble after the files have been read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from conf.composition.overrides import in_quotes
from tests.features.strange.conftest import Shell


def test_values_that_a_sweeps_grammar_cannot_read_are_put_in_quotes() -> None:
    typed = [
        "-m",
        "data.items=Käufe 2024/i.csv",
        "seed=0,1",
        "data.items=~/i.csv",
        'data.items="Käufe/i.csv"',
    ]
    assert in_quotes(typed) == [
        "-m",
        'data.items="Käufe 2024/i.csv"',
        "seed=0,1",
        'data.items="~/i.csv"',
        'data.items="Käufe/i.csv"',
    ]


@pytest.mark.parametrize("folder", ["Käufe 2024", "Zażółć", "sales [old]"])
def test_a_sweep_over_files_in_a_folder_of_any_name(shell: Shell, folder: str) -> None:
    (shell.folder / folder).mkdir()
    (shell.folder / folder / "i.csv").write_text("item_id,title\n1,Hat\n")
    done = subprocess.run(
        [sys.executable, "-m", "shelfwise", "-m", "prepare", f"data.items={folder}/i.csv",
         "work_dir=work-${seed}", "seed=0,1"],
        cwd=shell.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        items = pl.read_parquet(Path(shell.folder) / f"work-{seed}" / "dataset" / "items.parquet")
        assert items["title"].to_list() == ["Hat"]


def test_a_shopper_with_more_events_than_anybody_makes_is_named(shell: Shell) -> None:
    shell.write(items_csv="item_id,title\n1,Hat\n")
    users = ["till"] * 50_001 + ["ann", "ben"]
    events = pl.DataFrame(
        {"user_id": users, "item_id": "1", "timestamp": range(1_700_000_000, 1_700_050_003)}
    )
    events.write_csv(shell.folder / "events.csv")
    both = "data.items=items.csv data.events=events.csv"
    shell.prepare(both)
    [line] = shell.info["suspicious"]
    assert line.startswith(
        "user 'till' owns 100% of the events (50,001), and every epoch of training goes through all of them"
    )
    fix = "data.filters.max_user_events=50000"
    assert fix in line
    shell.prepare(f"{both} {fix}")
    assert shell.info["users"] == 2
