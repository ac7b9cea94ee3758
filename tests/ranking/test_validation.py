from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from conf.errors import InputError
from conf.schema import PipelineConfig, RankerConfig
from ranking.pipeline import evaluate
from ranking.validation import validate
from tests.synthetic import read_json

QUIET = Console(quiet=True)


def test_validation_alone_gives_the_full_evaluations_number(trained: PipelineConfig, tmp_path: Path) -> None:
    assert validate(trained, tmp_path / "out", QUIET) == evaluate(trained, QUIET)
    written = read_json(tmp_path / "out" / "validation.json")
    full = read_json(Path(trained.work_dir) / "evaluation" / "metrics.json")["valid"]
    assert isinstance(full, dict) and isinstance(written["valid"], dict)
    assert {k: full["shelfwise"][k] for k in written["valid"]} == written["valid"]


def test_models_made_with_other_settings_are_not_measured(trained: PipelineConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train-ranker"):
        validate(replace(trained, ranker=RankerConfig(epochs=9)), tmp_path, QUIET)
