from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import ranking.pipeline.run
from conf.schema import PipelineConfig
from tests.benchmarks.test_spread import made_up
from tests.synthetic import read_json
from tests.test_command_line import call
from tuning.seeds import SeedRuns, gain_lines, seeds_table

RECALL = {3: 0.10, 4: 0.14, 5: 0.12}
"""Of the system, by seed."""


def measured(config: PipelineConfig, console: Console) -> float | None:
    """Stand in for a run: its metrics depend on the seed, and it measures nothing for seed 9."""
    folder = Path(config.work_dir) / "evaluation"
    folder.mkdir(parents=True)
    if config.seed != 9:
        result = made_up(RECALL[config.seed] + config.user_encoder.dropout - 0.5, 0.05)
        (folder / "metrics.json").write_text(json.dumps(result))
    (folder / "reuse.json").write_text(json.dumps(config.reuse))
    return None


def multirun(patch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> int:
    patch.chdir(folder)
    patch.setattr(ranking.pipeline.run, "run", measured)
    return call(patch, "run", "-m", "data.items=items.csv", "work_dir=shop", *arguments)


def test_only_a_sweep_of_runs_over_seeds_is_one() -> None:
    assert SeedRuns.of("run", ["-m", "seed=0,1,2", "work_dir=x"]) == SeedRuns(())
    assert SeedRuns.of("run", ["seed=range(0,5)", "-m"]) == SeedRuns(())
    assert SeedRuns.of("run", ["user_encoder.dim=64,128", "seed=0,1", "-m"]) == SeedRuns(
        ("user_encoder.dim",)
    )
    assert SeedRuns.of("run", ["seed=3", "user_encoder.dim=64,128", "-m"]) is None
    assert SeedRuns.of("prepare", ["seed=0,1", "-m"]) is None
    assert SeedRuns.of("run", ["seed=0,1", "hydra/sweeper=optuna", "-m"]) is None
    assert SeedRuns.of("run", ["seed=0,1", "sweep=towers", "-m"]) is None
    assert SeedRuns.of("run", ["seed=[0,1", "-m"]) is None


def test_seeds_end_in_mean_deviation_and_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert multirun(monkeypatch, tmp_path, "seed=3,4,5") == 0
    printed = capsys.readouterr().out
    summary: Any = read_json(tmp_path / "shop" / "seeds" / "seeds.json")
    assert summary["seeds"] == [3, 4, 5]
    assert summary["work_dirs"] == ["shop/seeds/3", "shop/seeds/4", "shop/seeds/5"]
    own = summary["systems"]["shelfwise"]["recall@10"]
    assert own["values"] == [pytest.approx(RECALL[seed]) for seed in (3, 4, 5)]
    assert own["mean"] == pytest.approx(0.12)
    assert own["deviation"] == pytest.approx(0.02)
    assert (own["min"], own["max"]) == (pytest.approx(0.10), pytest.approx(0.14))
    assert summary["systems"]["knn"]["recall@10"]["deviation"] == 0
    assert ".1200 ± .0200" in printed
    assert ".1000 – .1400" in printed
    # against knn's .05, with the largest p-value of any seed, .014
    assert "recall@10: +140.0% over knn (largest p = 0.014)" in printed


def test_every_seed_has_a_work_directory_and_takes_over_finished_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert multirun(monkeypatch, tmp_path, "seed=3,4", "reuse=[earlier]") == 0
    for seed in (3, 4):
        donors: Any = read_json(tmp_path / "shop" / "seeds" / str(seed) / "evaluation" / "reuse.json")
        assert donors == ["earlier", "shop", "shop/seeds/*", "shop/seeds/*/*"]
    assert not (tmp_path / "shop" / "evaluation").exists()
    # No empty folders of Hydra's jobs, only its record of the command.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shop"]
    assert sorted(p.name for p in (tmp_path / "shop" / "seeds").iterdir()) == [
        "3", "4", "multirun.yaml", "seeds.json",
    ]  # fmt: skip


def test_every_combination_of_other_settings_has_its_own_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert multirun(monkeypatch, tmp_path, "seed=3,4", "user_encoder.dropout=0.5,0.6") == 0
    root = tmp_path / "shop" / "seeds"
    means = []
    for value in ("0.5", "0.6"):
        summary: Any = read_json(root / f"user_encoder.dropout={value}" / "seeds.json")
        assert summary["seeds"] == [3, 4]
        means.append(summary["systems"]["shelfwise"]["recall@10"]["mean"])
    assert means == [pytest.approx(0.12), pytest.approx(0.22)]
    assert not (root / "seeds.json").exists()


def test_seeds_without_a_measurement_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert multirun(monkeypatch, tmp_path, "seed=3,9") == 0
    summary: Any = read_json(tmp_path / "shop" / "seeds" / "seeds.json")
    assert summary["seeds"] == [3]
    assert summary["systems"]["shelfwise"]["recall@10"]["deviation"] is None
    (tmp_path / "none").mkdir()
    assert multirun(monkeypatch, tmp_path / "none", "seed=choice(9)") == 0
    assert "no seed was measured" in capsys.readouterr().out
    assert not (tmp_path / "none" / "shop" / "seeds" / "seeds.json").exists()


def test_the_table_has_a_row_per_system_and_dashes_for_unknown_values() -> None:
    spread = {"mean": 0.5, "deviation": None, "min": 0.5, "max": 0.5, "values": [0.5]}
    summary = {
        "window": "test",
        "system": "shelfwise",
        "seeds": [1],
        "systems": {"shelfwise": {"recall@10": spread}, "knn": {}},
        "gains": {"recall@10": {"best_baseline": "knn", "gain": None, "largest_p_value": None}},
    }
    table = seeds_table(summary)
    columns = [list(column.cells) for column in table.columns]
    assert columns[0] == ["shelfwise", "knn"]
    assert columns[1] == [".5000", "–"]
    assert gain_lines(summary) == []
