"""What becomes of an interrupted run whose settings have changed, by how far its publication had come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from conf.lifecycle import RetrainConfig
from lifecycle.retrain.journal import Journal, journals
from lifecycle.retrain.night import Places
from lifecycle.retrain.publishing import INTENT
from lifecycle.retrain.resuming import open_run
from lifecycle.retrain.watching import ROLLING_BACK
from ranking.bundle.store import publish_version, roll_back


def interrupted(folder: Path) -> tuple[RetrainConfig, Journal]:
    """Return settings and journal of a run that was killed when its version had just become current."""
    config = RetrainConfig(work_dir=str(folder))
    before, made = (publish_version(folder / "artifacts", lambda at: None, {"number": n}) for n in range(2))
    journal = Journal.begin(Places.of(config.work_dir).audit, config)
    journal.note(INTENT, {"version": made, "before": before})
    return config, journal


def reopened(config: RetrainConfig) -> tuple[Journal | None, Journal]:
    """Call with other settings; return the run to resume, and the interrupted one as it is now."""
    places = Places.of(config.work_dir)
    found = open_run(replace(config, seed=config.seed + 1), places, Console(quiet=True))
    return found, journals(places.audit)[-1]


def test_a_run_whose_version_is_current_is_published_though_its_journal_did_not_say_so_yet(
    tmp_path: Path,
) -> None:
    config, journal = interrupted(tmp_path)
    found, closed = reopened(config)
    assert found is None
    assert (closed.content["outcome"], closed.published) == ("published", journal.content[INTENT]["version"])
    assert closed.content["reason"] == "published, but not watched to the end: the settings have changed"


def test_a_run_whose_version_is_not_current_is_abandoned(tmp_path: Path) -> None:
    config, journal = interrupted(tmp_path)
    roll_back(tmp_path / "artifacts", journal.content[INTENT]["before"])
    found, closed = reopened(config)
    assert (found, closed.content["outcome"], closed.published) == (None, "abandoned", None)


def test_a_rollback_is_completed_whatever_has_changed_since(tmp_path: Path) -> None:
    config, journal = interrupted(tmp_path)
    journal.finish_step("publish", journal.content[INTENT], 0.0)
    journal.note(ROLLING_BACK, "broken: errors")
    found, _ = reopened(config)
    assert found is not None
    assert found.run == journal.run
    publish_version(tmp_path / "artifacts", lambda at: None, {"number": 3})
    found, closed = reopened(config)
    assert (found, closed.open) == (None, False), "another version is current"
