"""A bundle holds the map and the near duplicates of its items, unless it is published without."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import ranking.pipeline.publish as module
from conf.schema import PipelineConfig, PublishConfig
from ranking.bundle.bundle import load_bundle
from ranking.bundle.store import VERSIONS, current_version
from ranking.overview.overview import OVERVIEW, Overview
from ranking.pipeline.publish import publish


def published(trained: PipelineConfig, folder: Path, **settings: bool) -> tuple[Path, str]:
    """Return the version's folder and what was printed."""
    work = folder / "work"
    shutil.copytree(trained.work_dir, work)
    shutil.rmtree(work / "publish")
    with (folder / "out").open("w") as out:
        config = replace(trained, work_dir=str(work), publish=PublishConfig(**settings))
        publish(config, Console(file=out))
    store = work / "artifacts"
    return store / VERSIONS / current_version(store), (folder / "out").read_text()


def test_the_overview_is_of_the_published_vectors(trained: PipelineConfig, tmp_path: Path) -> None:
    folder, printed = published(trained, tmp_path)
    assert "publish: map of 60 items" in printed
    bundle = load_bundle(folder.parents[1])
    assert OVERVIEW in bundle.manifest["files"]
    read = Overview.load(folder, 60)
    assert read is not None
    assert read.is_layout
    again = Overview.of(
        bundle.catalogue.texts, bundle.text_vectors, bundle.recommender.arrays.text_near, trained.seed
    )
    assert np.array_equal(read.positions, again.positions)
    assert np.array_equal(read.pairs, again.pairs)
    assert (folder / OVERVIEW).stat().st_size < 60 * 8 + 20 * len(read.pairs) + 1000


def test_a_bundle_without_a_map_loads(trained: PipelineConfig, tmp_path: Path) -> None:
    folder, printed = published(trained, tmp_path, map=False)
    assert "publish: map" not in printed
    assert OVERVIEW not in load_bundle(folder.parents[1]).manifest["files"]
    assert Overview.load(folder, 60) is None


def test_without_the_library_a_line_names_the_extra(
    trained: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "can_lay_out", lambda: False)
    folder, printed = published(trained, tmp_path)
    assert "pip install 'shelfwise[map]'" in printed
    assert not (folder / OVERVIEW).exists()
