"""What a run deletes at its end, and what experiments keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from conf.lifecycle import LoopConfig, RetrainConfig
from lifecycle.retrain.journal import Journal
from lifecycle.retrain.night import Night, Places
from lifecycle.retrain.outcomes import Outcome
from lifecycle.retrain.retention import retain_step
from ranking.bundle.store import CURRENT, VERSIONS, publish_version, versions


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


def test_what_a_kill_leaves_of_a_deletion_goes_with_the_next_publication(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night, made = published(tmp_path, None)
    with monkeypatch.context() as patch:
        patch.setattr("lifecycle.retrain.retention.shutil.rmtree", lambda *_, **__: None)
        assert retain_step(night)["versions"] == made[:4]
    folder = night.store / VERSIONS
    assert len(list(folder.iterdir())) == 6
    assert versions(night.store) == made[4:]
    last = publish_version(night.store, lambda at: None, {"number": 7})
    assert sorted(path.name for path in folder.iterdir()) == [*made[4:], last]


def test_a_version_that_cannot_be_deleted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night, made = published(tmp_path, None)
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if path.name == made[1]:
            raise PermissionError(13, "Permission denied", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    console = Console(record=True, width=200)
    assert retain_step(replace(night, console=console))["versions"] == [made[0], *made[2:4]]
    said = f"retrain: version {made[1]} cannot be deleted: Permission denied"
    assert console.export_text().splitlines() == [said]


def test_the_run_of_the_served_version_stays_after_a_rollback(tmp_path: Path) -> None:
    night, made = published(tmp_path, None)
    night = replace(night, config=replace(night.config, retrain=LoopConfig(keep_runs=1)))
    names = []
    for version in made[4:]:
        journal = Journal.begin(night.places.audit, night.config)
        journal.steps["publish"] = {"version": version}
        journal.end(Outcome.published, "")
        (night.places.runs / journal.run).mkdir(parents=True)
        names.append(journal.run)
    roll_back_to(night.store, made[4])
    journal = Journal.begin(night.places.audit, night.config)
    (night.places.runs / journal.run).mkdir()
    assert retain_step(replace(night, journal=journal))["runs"] == [names[1]]
    assert sorted(path.name for path in night.places.runs.iterdir()) == [names[0], journal.run]


def roll_back_to(store: Path, version: str) -> None:
    """Make a version current without a look at its files, which are none."""
    (store / CURRENT).write_text(version + "\n")
