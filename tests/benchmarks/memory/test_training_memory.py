"""The benchmark's shop, and its measure of memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.training_memory import PARTS, make_events, measure, open_events

ROOT = Path(__file__).parents[3]
EVENTS, ITEMS, USERS = 20_000, 500, 300
PEAK = """
import time
import numpy as np
from benchmarks.training_memory import Peak

with Peak() as peak:
    block = np.ones(64 << 20, dtype=np.uint8)
    time.sleep(1)
    del block
print(peak.bytes)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("events")
    make_events(made, EVENTS, ITEMS, USERS)
    return made


def test_the_shop_is_skewed_and_in_order(folder: Path) -> None:
    events = open_events(folder)
    lengths = events.lengths()
    assert len(events) == lengths.sum() == EVENTS
    assert events.users == USERS
    assert lengths.min() >= 1
    assert lengths.max() > 10 * np.median(lengths)
    assert np.array_equal(events.user, np.repeat(np.arange(USERS), lengths))
    counts = np.bincount(events.item, minlength=ITEMS)
    assert len(counts) == ITEMS
    assert counts[:50].sum() > 2.5 * counts[-50:].sum()
    steps = np.diff(events.time)[np.diff(events.user) == 0]
    assert set(steps.tolist()) == {0, 60}, "every second event shares the second of the one before it"


def test_a_peak_is_what_was_allocated_and_freed() -> None:
    command = [sys.executable, "-c", PEAK]  # this one may give back at any time what other tests have left
    found = int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert 0.9 < found / (64 << 20) < 2, "the kernel counts pages in batches"


@pytest.mark.parametrize("part", PARTS)
def test_every_part_runs_on_mapped_events_and_leaves_them_as_they_are(part: str, folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = measure(part, folder, ITEMS)
    assert found["bytes"] >= 0
    assert found["seconds"] > 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
