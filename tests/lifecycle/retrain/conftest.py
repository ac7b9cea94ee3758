"""A synthetic shop whose events of the last days arrive night by night."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from conf.lifecycle import LoopConfig, RetrainConfig
from conf.schema import CandidateConfig, PipelineConfig, RankerConfig, SplitKind
from features.data import schema
from lifecycle.retrain.command import retrain
from lifecycle.retrain.journal import Journal, journals
from lifecycle.retrain.night import Places
from ranking.bundle.store import current_version
from tests.synthetic import DAY, START, World, make_world, pipeline_config

FIRST = 28
"""Days from the first event to the end of the log on the first night."""
NEW_ITEMS_ONLY = {
    "candidates": CandidateConfig(
        user_vector=0, item_to_item=0, text_neighbours=0, repeat=0, popular=0, co_purchase=0, new_items=20
    ),
    "ranker": RankerConfig(enabled=False),
}
"""Settings of a model that lists items without events alone, and so next to nothing that is chosen."""


@dataclass(frozen=True)
class Shop:
    """A shop's tables on disk, and the settings of its nights."""

    world: World
    config: RetrainConfig

    @classmethod
    def at(cls, folder: Path, bert: Path) -> Shop:
        """Return the shop of a folder; its items are written."""
        world = make_world()
        pipeline = pipeline_config(world, bert, folder, SplitKind.global_time)
        values = {own.name: getattr(pipeline, own.name) for own in fields(PipelineConfig)}
        config = RetrainConfig(**{**values, "retrain": LoopConfig(min_new_events=5)})
        return cls(world, replace(config, publish=replace(config.publish, map=False)))

    def log(self, day: float) -> pl.DataFrame:
        """Return the events before the end of a day."""
        return self.world.events.filter(pl.col(schema.TIMESTAMP) < START + day * DAY)

    def until(self, day: float) -> None:
        """Write the log as it is at the end of a day."""
        self.write(self.log(day))

    def write(self, events: pl.DataFrame) -> None:
        events.write_csv(str(self.config.data.events))

    def settings(self, **settings: Any) -> RetrainConfig:
        """Return the settings of a night; those of the loop by their own names."""
        loop = {own.name for own in fields(LoopConfig)}
        changed = replace(self.config.retrain, **{k: v for k, v in settings.items() if k in loop})
        return replace(self.config, retrain=changed, **{k: v for k, v in settings.items() if k not in loop})

    def night(self, **settings: Any) -> tuple[int, list[str]]:
        """Run a night; return its exit code and the lines that it printed."""
        console = Console(record=True, width=200)
        try:
            retrain(self.settings(**settings), console)
            code: object = 0
        except SystemExit as end:
            code = end.code
        return int(str(code)), console.export_text().splitlines()

    @property
    def store(self) -> Path:
        return Path(self.config.work_dir) / "artifacts"

    @property
    def current(self) -> str:
        return current_version(self.store)

    @property
    def places(self) -> Places:
        return Places.of(self.config.work_dir)

    @property
    def last(self) -> Journal:
        return journals(self.places.audit)[-1]

    def manifest(self, version: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.store / "versions" / version / "manifest.json").read_text())
        return found


@pytest.fixture
def new_shop(tmp_path: Path, bert: Path) -> Shop:
    """A shop before its first night."""
    shop = Shop.at(tmp_path, bert)
    shop.until(FIRST)
    return shop


@pytest.fixture(scope="session")
def first_night(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> Path:
    """Folder of a shop after its first night; not to be changed."""
    folder = tmp_path_factory.mktemp("first_night")
    shop = Shop.at(folder, bert)
    shop.until(FIRST)
    code, lines = shop.night()
    assert code == 0, lines
    return folder


@pytest.fixture
def shop(first_night: Path, tmp_path: Path, bert: Path) -> Shop:
    """A shop on the second evening: a model is served, and two days have passed."""
    shutil.copytree(first_night, tmp_path / "shop")
    shop = Shop.at(tmp_path / "shop", bert)
    shop.until(FIRST + 2)
    return shop
