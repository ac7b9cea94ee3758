from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from conf.schema import PipelineConfig
from ranking.pipeline.run import evaluate


@pytest.fixture(scope="package")
def evaluated(trained: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    """A finished run with its evaluation; not to be changed."""
    work = tmp_path_factory.mktemp("evaluated") / "work"
    shutil.copytree(trained.work_dir, work)
    measured = replace(trained.evaluation, baselines=["popularity", "item_knn"], bootstrap=50)
    config = replace(trained, work_dir=str(work), evaluation=measured)
    evaluate(config, Console(quiet=True))
    return config


@pytest.fixture
def run(evaluated: PipelineConfig, tmp_path: Path) -> PipelineConfig:
    """A copy of the evaluated run that may be changed."""
    shutil.copytree(evaluated.work_dir, tmp_path / "work")
    return replace(evaluated, work_dir=str(tmp_path / "work"))
