from __future__ import annotations

import json
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from conf.schema import DataConfig, Engine, PipelineConfig, PrivacyConfig
from features.prepare import prepare
from tests.features.spark_session import WHOLE_SUITE, spark_of_tests

ITEMS = "item_id,title\n1,Red boots\n2,Blue hat\n3,Green scarf\n"


@dataclass(frozen=True)
class Prepared:
    folder: Path
    printed: str

    @property
    def info(self) -> dict[str, Any]:
        info: dict[str, Any] = json.loads((self.folder / "dataset.json").read_text())
        return info

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.folder / f"{name}.parquet")


class Shop:
    """A folder of raw files and the datasets prepared from them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def prepare(
        self,
        data: DataConfig,
        privacy: PrivacyConfig | None = None,
        seed: int = 0,
        engine: Engine = WHOLE_SUITE,
    ) -> Prepared:
        if engine is Engine.spark:
            spark_of_tests()
        out = StringIO()
        config = PipelineConfig(
            work_dir=str(self.work), seed=seed, engine=engine, data=data, privacy=privacy or PrivacyConfig()
        )
        folder = prepare(config, Console(file=out, width=200))
        return Prepared(folder, out.getvalue())


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def items(shop: Shop) -> str:
    """Path of a catalogue of three items with ids 1, 2 and 3."""
    return shop.write("items.csv", ITEMS)
