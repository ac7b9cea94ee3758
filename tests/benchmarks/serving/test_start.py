"""The benchmark of starts: what it reads of a process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.serving.start import cpu_seconds


def test_cpu_seconds_are_fields_14_and_15_whatever_the_name() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    line = f"7 (a (b) c) S 1 7 7 0 -1 4194304 10 0 0 0 {3 * ticks} {ticks // 2} 9 9 20 0 1 0 100 1000 50"
    assert cpu_seconds(line) == pytest.approx(3.5)
    own = os.times()
    assert cpu_seconds(Path("/proc/self/stat").read_text()) == pytest.approx(own.user + own.system, abs=0.5)
