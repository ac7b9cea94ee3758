"""What the comparison of engines reports: costs of a whole process tree, and every difference of datasets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from benchmarks.spark_prepare.__main__ import differences
from benchmarks.spark_prepare.cost import cost_of

BUSY = "import time\nuntil = time.process_time() + 0.6\nheld = bytearray(100 << 20)\n"
BUSY += "held[::4096] = b'x' * 25600\nwhile time.process_time() < until: pass\n"


def test_a_grandchild_that_nobody_waits_for_is_counted(tmp_path: Path) -> None:
    child = f"import subprocess, sys, time\nc = subprocess.Popen([sys.executable, '-c', {BUSY!r}])\n"
    child += "while c.poll() is None: time.sleep(0.05)\n"
    cost = cost_of([sys.executable, "-c", child], tmp_path / "log", {})
    assert cost.cpu_s > 0.3
    assert cost.peak_mib > 100
    assert cost.wall_s >= 0.6


def test_a_failure_is_no_cost(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        cost_of([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log", {})


def test_every_difference_of_two_datasets_is_named(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    for name in ("items", "events", "rejects"):
        pl.DataFrame({"a": [1, 2]}).write_parquet(one / f"{name}.parquet")
    (one / "dataset.json").write_text(json.dumps({"events": 2, "content_hash": "x"}))
    shutil.copytree(one, other)
    assert differences(one, other) == []
    pl.DataFrame({"a": [2, 1]}).write_parquet(other / "events.parquet")
    (other / "dataset.json").write_text(json.dumps({"events": 2, "content_hash": "y", "more": 1}))
    assert differences(one, other) == ["events.parquet", "content_hash", "more"]
