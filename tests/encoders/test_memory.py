from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import encoders.memory as memory
from encoders.memory import free_memory
from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Dataset
from tests.encoders.training.test_stage_one import SETTINGS, module_of

CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 1,000 kB free, its files in a folder."""
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CONTROL_GROUP", tmp_path)
    (tmp_path / "meminfo").write_text("MemTotal:    9000 kB\nMemFree:   10 kB\nMemAvailable:    1000 kB\n")
    return tmp_path


def test_free_memory_is_what_linux_and_the_control_group_leave(machine: Path) -> None:
    assert free_memory(CPU) == 1_024_000
    (machine / "memory.max").write_text("max\n")
    (machine / "memory.current").write_text("700\n")
    assert free_memory(CPU) == 1_024_000, "no limit"
    (machine / "memory.max").write_text("1000\n")
    assert free_memory(CPU) == 300
    (machine / "memory.current").write_text("1200\n")
    assert free_memory(CPU) == 0
    (machine / "meminfo").unlink()
    assert free_memory(CPU) == 0


def test_activations_are_kept_where_a_quarter_of_the_free_memory_holds_them(
    dataset: Dataset, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, batch_size=2, piece=3, recompute=None)
    config = encoder.backbone.config
    lengths = module_of(dataset, encoder, settings).texts.whole.lengths
    kept = 6 * float(lengths.mean()) * 68 * config.num_hidden_layers * config.hidden_size
    for free, again in ((4 * kept - 8, True), (4 * kept + 8, False)):
        monkeypatch.setattr("encoders.training.stage_one.free_memory", lambda _, free=free: free)
        assert module_of(dataset, encoder, settings)._recompute is again
        assert module_of(dataset, encoder, replace(settings, recompute=True))._recompute is True
