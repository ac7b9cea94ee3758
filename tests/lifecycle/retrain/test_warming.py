"""Nights that begin with the models of the night before."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from conf.lifecycle import LoopConfig, RetrainConfig
from lifecycle.retrain.journal import Journal
from lifecycle.retrain.night import Night, Places
from lifecycle.retrain.outcomes import Outcome
from lifecycle.retrain.warming import COLD, WARM, earlier_models
from lifecycle.retrain.window import iso
from tests.lifecycle.retrain.conftest import FIRST, Shop


def train_of(shop: Shop) -> dict[str, Any]:
    record: dict[str, Any] = shop.last.steps["train"]
    return record


def test_a_night_begins_with_the_models_of_the_last_published_one(shop: Shop) -> None:
    first = shop.last
    assert train_of(shop)["start"] == "cold"
    assert shop.night()[0] == 0
    night = train_of(shop)
    assert night["start"] == "warm"
    assert Path(night["source"]).name == first.run
    made = shop.manifest(shop.current)
    assert made["warm_start"]["parts"] == ["text_encoder", "towers", "ranker_towers", "ranker"]
    # What validation holds back begins no earlier than where the learning of the models ends.
    held_back = shop.last.steps["plan"]["valid_start"]
    until = iso(max(made["learned_until"].values()))
    assert held_back is None or held_back >= until
    assert until <= shop.last.steps["plan"]["window_start"]


def test_every_so_many_nights_one_begins_from_the_beginning(shop: Shop) -> None:
    assert shop.night(cold_every=2)[0] == 0
    assert train_of(shop)["start"] == "warm"
    shop.until(FIRST + 4)
    assert shop.night(cold_every=2)[0] == 0
    assert train_of(shop)["start"] == "cold"


def test_without_the_models_of_the_last_night_a_run_begins_from_the_beginning(shop: Shop) -> None:
    earlier = Path(shop.config.work_dir) / "retrain" / "runs" / shop.last.run
    shutil.rmtree(earlier / "ranker")
    code, lines = shop.night()
    assert code == 0
    assert train_of(shop)["start"] == "cold"
    assert any(f"not with the models of {earlier.name}" in line for line in lines)


def test_a_run_from_the_beginning_that_is_refused_is_not_repeated_every_night(tmp_path: Path) -> None:
    config = RetrainConfig(work_dir=str(tmp_path), retrain=LoopConfig(cold_every=3))
    places = Places.of(config.work_dir)
    folder = places.runs / run_with(places.audit, config, COLD, "v1")
    folder.mkdir(parents=True)

    def source() -> Path | None:
        night = Night(config, Console(quiet=True), Journal.begin(places.audit, config))
        night.journal.steps["prepare"] = {"served_version": "v1"}
        return earlier_models(night)

    run_with(places.audit, config, WARM, "v2")
    assert source() == folder
    run_with(places.audit, config, WARM, None)
    assert source() is None, "the third run since the last cold one"
    run_with(places.audit, config, COLD, None)  # refused
    assert source() == folder


def run_with(audit: Path, config: RetrainConfig, start: str, version: str | None) -> str:
    """Write the journal of a run that was trained, and published or not; return its id."""
    journal = Journal.begin(audit, config)
    journal.steps.update(train={"start": start}, publish={} if version is None else {"version": version})
    journal.end(Outcome.refused if version is None else Outcome.published, "")
    return journal.run
