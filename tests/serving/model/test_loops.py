"""Compiled loops of a model's process: which ones there are, and that no request waits for one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conf.schema import PipelineConfig
from features.kernels.ahead import SIGNATURES

ROOT = Path(__file__).parents[3]


def test_every_loop_of_a_model_is_listed_and_so_compiled_before_its_first_call(
    trained: PipelineConfig,
) -> None:
    store = str(Path(trained.work_dir) / "artifacts")
    command = [sys.executable, "-m", "tests.serving.model.use_every_loop", store]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    used, listed = json.loads(done.stdout), json.loads(SIGNATURES.read_text())
    assert len(used) > 15
    missing = {name: sorted(set(texts) - set(listed.get(name, []))) for name, texts in used.items()}
    assert {name: texts for name, texts in missing.items() if texts} == {}, (
        f"features/kernels/{SIGNATURES.name} lacks these: add them"
    )
