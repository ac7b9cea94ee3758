from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import results
from benchmarks.results import ROWS, Row, measure, to_markdown, with_costs
from benchmarks.runs import Run, merge_overrides, put_section, shown_command
from conf.composition.compose import compose_command
from conf.errors import InputError
from tuning.spread import Spread, spread, summarise

QUIET = Console(quiet=True)


def made_up(own: float, knn: float, later: float | None = 0.05) -> dict[str, Any]:
    """Metrics of one seed: a system, its tower and two baselines."""

    def both(value: float | None) -> dict[str, float | None]:
        return {"recall@10": value, "ndcg@10": None if value is None else value / 2}

    systems = {"shelfwise": both(own), "user_tower": both(0.9), "knn": both(knn), "pop": both(0.01)}
    cold = {n: {"within": both(v), "full": both(0.0)} for n, v in (("shelfwise", own), ("frozen_text", 0.05))}
    return {
        "protocol": {
            "measured": "test", "system": "shelfwise", "parts": ["user_tower"], "dataset_hash": "d",
            "code_version": "0.1", "queries": {"test": 1000, "valid": 900}, "items": 50, "users": 1000,
            "events": 9000, "exclude_seen": True,
        },
        "test": systems,
        "valid": systems,
        "slices": {"later_day": {"targets": 7, "systems": {n: both(later) for n in systems}}},
        "cold_catalogue": {
            "test": {"no_training_event": {"about": "new items", "items": 9, "targets": 4, "systems": cold}}
        },
        "significance": {"test": {"knn": {"recall@10": {"p_value": own / 10}}}},
        "timing": {"run_seconds": {"prepare": 1.0, "train-encoder": 2.0}},
    }  # fmt: skip


def runs_of(*metrics: dict[str, Any]) -> list[Run]:
    return [Run(["a=b"], 60.0 * n, 100.0, True, m) for n, m in enumerate(metrics, start=1)]


def summary_of(runs: list[Run], seeds: list[int], metrics: tuple[str, ...]) -> dict[str, Any]:
    return with_costs(summarise([run.metrics for run in runs], metrics), runs, seeds)


def test_mean_and_sample_deviation_by_hand() -> None:
    three = Spread([0.1, 0.2, 0.6])
    assert three.mean == pytest.approx(0.3)
    assert three.deviation == pytest.approx(((0.04 + 0.01 + 0.09) / 2) ** 0.5)
    assert Spread([0.5]).deviation is None
    assert (three.plain()["min"], three.plain()["max"]) == (0.1, 0.6)
    found = spread([{"a": {"b": 1}}, {"a": {"b": 3}}], ("a", "b"))
    assert found is not None
    assert found.values == [1.0, 3.0]
    assert spread([{"a": {"b": 1}}, {"a": {}}], ("a", "b")) is None
    assert spread([{"a": {"b": None}}], ("a", "b")) is None


def test_a_row_by_hand() -> None:
    runs = runs_of(made_up(0.10, 0.08), made_up(0.12, 0.10), made_up(0.14, 0.09))
    row = summary_of(runs, [0, 1, 2], ("recall@10", "ndcg@10"))
    own = row["systems"]["shelfwise"]["recall@10"]
    assert own["mean"] == pytest.approx(0.12)
    assert own["deviation"] == pytest.approx(0.02)
    # The tower is a part of the system and no baseline, however good it is; .12 / .09 - 1.
    assert row["baselines"] == ["knn", "pop"]
    assert row["gains"]["recall@10"]["best_baseline"] == "knn"
    assert row["gains"]["recall@10"]["gain"] == pytest.approx(1 / 3)
    assert row["gains"]["recall@10"]["largest_p_value"] == pytest.approx(0.014)
    assert row["gains"]["ndcg@10"]["largest_p_value"] is None
    assert row["slices"]["later_day"]["systems"]["knn"]["recall@10"]["mean"] == pytest.approx(0.05)
    assert row["cold"]["no_training_event"]["systems"]["shelfwise"]["within recall@10"][
        "mean"
    ] == pytest.approx(0.12)
    assert [run["seconds"] for run in row["runs"]] == [60.0, 120.0, 180.0]
    json.dumps(row, allow_nan=False)


def test_an_empty_slice_of_one_seed_leaves_the_slice_out() -> None:
    runs = runs_of(made_up(0.1, 0.08), made_up(0.1, 0.08, later=None))
    assert summary_of(runs, [0, 1], ("recall@10",))["slices"] == {}


def test_the_markdown_shows_it() -> None:
    runs = runs_of(made_up(0.10, 0.08), made_up(0.14, 0.10))
    text = to_markdown("A shop", "python -m x", summary_of(runs, [0, 1], ("recall@10", "ndcg@10")))
    assert "| **shelfwise** | .1200 ± .0283 | .0600 ± .0141 | .1200 ± .0283 | .0600 ± .0141 |" in text
    assert "| knn | .0900 ± .0141 |" in text
    assert "user_tower (part of it)" in text
    assert "recall@10 +33.3% over knn, p = 0.014" in text
    assert "| **shelfwise** | .1200 ± .0283 | .0600 ± .0141 | .0000 ± .0000 | .0000 ± .0000 | 2.40 |" in text
    assert "| 0 | 60 | 100 | prepare 1, train-encoder 2 |" in text
    single = to_markdown("A shop", "x", summary_of(runs[:1], [4], ("recall@10",)))
    assert "seed 4." in single
    assert "±" not in single


def test_later_overrides_win_and_settings_need_a_value() -> None:
    assert merge_overrides(["a=1", "b=2"], ["c=3"], ["a=4"]) == ["a=4", "b=2", "c=3"]
    with pytest.raises(InputError, match="'seed' is not an override"):
        merge_overrides(["seed"])


def test_commands_name_files_without_their_folders() -> None:
    words = ("beauty", "data.items=/data/here/items.parquet", "data.text_fields=[title]")
    assert shown_command("results", *words) == (
        "python -m benchmarks.results beauty data.items=items.parquet 'data.text_fields=[title]'"
    )


def test_a_section_is_replaced_and_the_rest_of_the_page_stays(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks" / "results.md"
    put_section(page, "a", "first")
    put_section(page, "b", "second")
    page.write_text("# Results\n\n" + page.read_text() + "\nThe end.\n")
    put_section(page, "a", "third\n")
    text = page.read_text()
    assert text.startswith("# Results\n\n<!-- a:")
    assert text.endswith("The end.\n")
    assert "first" not in text
    assert text.index("third") < text.index("second")


@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_a_valid_configuration(name: str) -> None:
    config = compose_command("run", merge_overrides(ROWS[name].overrides, (results.BASELINES,)))
    assert len(config.evaluation.baselines) == 9
    assert all(int(m.partition("@")[2]) in config.evaluation.ks for m in ROWS[name].metrics)


def test_seeds_run_one_after_another_in_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[str], Path]] = []

    def stand_in(overrides: list[str], work: Path, console: Console) -> Run:
        asked.append((overrides, work))
        return runs_of(made_up(0.1, 0.08))[0]

    monkeypatch.setattr(results, "run_once", stand_in)
    row = Row("A shop", ("data=files", "split=leave_one_out"))
    (tmp_path / "shop").mkdir()
    markdown = measure("shop", row, ["split=global_time"], [3, 5], tmp_path, QUIET)
    settings = ["data=files", "split=global_time", results.BASELINES]
    assert asked == [([*settings, f"seed={s}"], tmp_path / "shop" / f"seed-{s}") for s in (3, 5)]
    assert (tmp_path / "shop" / "results.md").read_text() == markdown
    kept = json.loads((tmp_path / "shop" / "results.json").read_text())
    assert kept["command"] == "python -m benchmarks.results shop --seeds 3,5 split=global_time"
