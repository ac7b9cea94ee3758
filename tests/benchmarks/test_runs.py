from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.ablation import BASE, adopt, folder_of, measure, read_variations, to_markdown
from benchmarks.runs import LOG, RECORD, finished, run_once
from conf.composition.compose import compose_command
from conf.errors import InputError
from tests.synthetic import World

QUIET = Console(quiet=True)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, world: World, quick_settings: list[str]) -> list[str]:
    """Overrides of a run that takes seconds."""
    items, events = world.write(tmp_path_factory.mktemp("raw"))
    return [f"data.items={items}", f"data.events={events}", *quick_settings]


@pytest.fixture(scope="module")
def ablated(
    tmp_path_factory: pytest.TempPathFactory, settings: list[str]
) -> tuple[Path, list[dict[str, object]]]:
    folder = tmp_path_factory.mktemp("ablation")
    lines = measure({"No ranking head!": ["ranker.enabled=false"]}, settings, folder, QUIET)
    return folder, lines


def test_a_variation_repeats_only_what_it_changes(ablated: tuple[Path, list[dict[str, object]]]) -> None:
    folder, lines = ablated
    base, own = folder / BASE, folder / "no-ranking-head"
    weights = Path("encoder") / "towers" / "user_encoder.safetensors"
    assert (base / weights).stat().st_ino == (own / weights).stat().st_ino, "kept, not trained again"
    assert (base / "ranker" / "ranker.safetensors").is_file(), "the base's own is not touched"
    assert not (own / "ranker" / "ranker.safetensors").exists()
    metrics = json.loads((own / "evaluation" / "metrics.json").read_text())
    assert "test" not in metrics
    assert metrics["protocol"]["measured"] == "valid"
    assert not (own / "artifacts").exists(), "nothing is published"
    assert [line["name"] for line in lines] == [BASE, "No ranking head!"]


def test_differences_are_those_of_the_reported_means(ablated: tuple[Path, list[dict[str, object]]]) -> None:
    folder, lines = ablated
    reported = [
        json.loads((folder / name / "evaluation" / "metrics.json").read_text())["valid"]["shelfwise"]
        for name in (BASE, "no-ranking-head")
    ]
    for line, metrics in zip(lines, reported, strict=True):
        found = line["metrics"]
        assert isinstance(found, dict)
        for metric in ("recall@10", "ndcg@10"):
            assert found[metric] == pytest.approx(metrics[metric])
    compared = lines[1]["compared"]
    assert isinstance(compared, dict)
    difference = reported[1]["ndcg@10"] - reported[0]["ndcg@10"]
    assert compared["ndcg@10"]["difference"] == pytest.approx(difference)
    assert 0 <= compared["ndcg@10"]["p_value"] <= 1
    text = to_markdown("A shop", "python -m x", lines, 60)
    assert "| base |" in text
    assert "| No ranking head! |" in text
    assert np.isfinite(difference)
    assert f"{abs(difference):.4f}".removeprefix("0") in text


def test_a_finished_run_is_kept_and_other_settings_are_not(
    ablated: tuple[Path, list[dict[str, object]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = ablated[0] / BASE
    record = json.loads((work / RECORD).read_text())
    assert record["complete"]
    assert record["seconds"] > 0
    assert 50 < record["peak_mib"] < 50_000
    monkeypatch.setattr("benchmarks.runs.subprocess.Popen", None)  # nothing may start
    again = run_once(record["overrides"], work, QUIET)
    assert (again.seconds, again.peak_mib) == (record["seconds"], record["peak_mib"])
    assert finished(work, [*record["overrides"], "seed=1"]) is None
    assert finished(work / "nowhere", record["overrides"]) is None


def test_a_failed_run_says_its_last_words_and_leaves_no_record(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"exit code 2: .*no such file: nothing.csv"):
        run_once(["data.items=nothing.csv"], tmp_path / "work", QUIET)
    assert (tmp_path / "work" / LOG).is_file()
    assert not (tmp_path / "work" / RECORD).exists()


def test_only_finished_steps_are_adopted(tmp_path: Path) -> None:
    source, target = tmp_path / "base", tmp_path / "other"
    for step in ("dataset", "encoder"):
        (source / step).mkdir(parents=True)
        (source / step / "weights").write_text(step)
    (source / "dataset" / "stage.json").write_text("{}")
    target.mkdir()
    assert adopt(source, target) == ["dataset"]
    assert (target / "dataset" / "weights").stat().st_ino == (source / "dataset" / "weights").stat().st_ino
    assert adopt(source, target) == []  # what it has is its own


def test_variations_are_named_lists_of_overrides(tmp_path: Path) -> None:
    page = tmp_path / "a.yaml"
    page.write_text("no head: [ranker.enabled=false]\n")
    assert read_variations(page) == {"no head": ["ranker.enabled=false"]}
    page.write_text("no head: [ranker.enabled=false]\nno text: [user_encoder.text=false]\n")
    assert list(read_variations(page, ["no text"])) == ["no text"]
    with pytest.raises(InputError, match="no variation 'no texts'; there are: no head, no text"):
        read_variations(page, ["no texts"])
    page.write_text("no head: ranker.enabled=false\n")
    with pytest.raises(InputError, match="one line per variation"):
        read_variations(page)
    with pytest.raises(InputError, match="No such file"):
        read_variations(tmp_path / "b.yaml")
    with pytest.raises(InputError, match="share a folder"):
        measure({"a b": [], "a-b": []}, [], tmp_path, QUIET)
    assert folder_of("No ranking head!") == "no-ranking-head"


def test_the_shipped_variations_compose() -> None:
    variations = read_variations(ROOT / "benchmarks" / "ablation.yaml")
    assert len(variations) > 5
    for overrides in variations.values():
        compose_command("run", overrides)
