"""What a run deletes at its end, and what experiments keep."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from conf.lifecycle import LoopConfig, RetrainConfig
from lifecycle.retrain.journal import Journal
from lifecycle.retrain.night import Night, Places
from lifecycle.retrain.retention import retain_step
from ranking.bundle.store import publish_version, versions


def published(folder: Path, experiments: Path | None) -> tuple[Night, list[str]]:
    """Return a run that has published the last of six versions; nothing in them is a model."""
    settings = LoopConfig(keep_versions=2, experiments=None if experiments is None else str(experiments))
    config = RetrainConfig(work_dir=str(folder), retrain=settings)
    made = [publish_version(folder / "artifacts", lambda at: None, {"number": n}) for n in range(6)]
    night = Night(config, Console(quiet=True), Journal.begin(Places.of(config.work_dir).audit, config))
    night.journal.steps["publish"] = {"version": made[-1], "before": made[-2]}
    return night, made


def test_versions_that_arms_name_stay(tmp_path: Path) -> None:
    file = tmp_path / "experiments.yaml"
    night, made = published(tmp_path, file)
    file.write_text(
        f"a: {{arms: {{x: {{share: 0.5, version: previous}}, y: {{share: 0.5, version: {made[1]}}}}}}}\n"
        f"b: {{end: 2024-01-01, start: 2023-01-01, surfaces: [x], enabled: false, "
        f"arms: {{x: {{share: 1, version: {made[2]}}}}}}}\n"
    )
    assert retain_step(night)["versions"] == [made[0], made[2], made[3]]  # b has ended
    assert versions(night.store) == [made[1], made[4], made[5]]


def test_nothing_is_deleted_while_the_file_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "experiments.yaml"
    night, made = published(tmp_path, file)
    file.write_text("a: 7")
    assert retain_step(night)["versions"] == []
    assert versions(night.store) == made


def test_without_experiments_the_newest_stay(tmp_path: Path) -> None:
    night, made = published(tmp_path, None)
    assert retain_step(night)["versions"] == made[:4]
