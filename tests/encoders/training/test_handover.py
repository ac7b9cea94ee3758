"""Jobs handed over to other processes: equal values, arrays in mapped files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from encoders.training.handover import JOB, SMALL, hand_over, take_over


def test_large_arrays_are_files_that_are_mapped_and_small_ones_are_pickled(tmp_path: Path) -> None:
    large, small = np.arange(100_000, dtype=np.int64), np.arange(3)
    hand_over({"large": large, "small": small, "text": "x"}, tmp_path / "job")
    assert sorted(os.listdir(tmp_path / "job")) == ["0.npy", JOB]
    assert (tmp_path / "job" / JOB).stat().st_size < SMALL // 16
    job = take_over(tmp_path / "job")
    assert isinstance(job["large"], np.memmap)
    np.testing.assert_array_equal(job["large"], large)
    np.testing.assert_array_equal(job["small"], small)
    assert job["text"] == "x"


def test_an_array_and_a_tensor_of_one_memory_are_one_file(tmp_path: Path) -> None:
    array = np.arange(50_000, dtype=np.float32)
    hand_over(
        [array, torch.from_numpy(array), array, array[10:], array.reshape(100, 500).T], tmp_path / "job"
    )
    whole, tensor, again, part, turned = take_over(tmp_path / "job")
    assert sorted(os.listdir(tmp_path / "job")) == ["0.npy", "1.npy", "2.npy", JOB]
    assert whole is again
    np.testing.assert_array_equal(tensor.numpy(), array)
    np.testing.assert_array_equal(part, array[10:])
    np.testing.assert_array_equal(turned, array.reshape(100, 500).T)


def test_a_module_keeps_its_weights_ties_and_what_is_trained(tmp_path: Path) -> None:
    module = nn.ModuleDict({"table": nn.Embedding(1000, 64), "tied": nn.Embedding(1000, 64)})
    module["tied"].weight = module["table"].weight
    module.register_buffer("kept", torch.ones(40_000, dtype=torch.bfloat16))
    module["frozen"] = nn.Linear(300, 300).requires_grad_(False)
    hand_over(module, tmp_path / "job")
    taken = take_over(tmp_path / "job")
    assert taken["tied"].weight is taken["table"].weight
    assert isinstance(taken["table"].weight, nn.Parameter)
    assert [p.requires_grad for p in taken.parameters()] == [p.requires_grad for p in module.parameters()]
    for name, values in module.state_dict().items():
        assert torch.equal(taken.state_dict()[name], values)


def test_what_a_process_changes_is_its_own(tmp_path: Path) -> None:
    hand_over(nn.Embedding(1000, 64), tmp_path / "job")
    first, second = take_over(tmp_path / "job"), take_over(tmp_path / "job")
    before = second.weight.detach().clone()
    with torch.no_grad():
        first.weight.add_(1.0)
    assert torch.equal(second.weight, before)
    assert torch.equal(first.weight, before + 1.0)
    assert torch.equal(take_over(tmp_path / "job").weight, before)


def test_a_folder_is_emptied_first_and_objects_are_refused_as_pickle_refuses_them(tmp_path: Path) -> None:
    hand_over([np.zeros(SMALL)], tmp_path)
    hand_over([np.zeros(3)], tmp_path)
    assert os.listdir(tmp_path) == [JOB]
    with pytest.raises((AttributeError, TypeError), match="pickle|local"):
        hand_over(lambda: 1, tmp_path)
