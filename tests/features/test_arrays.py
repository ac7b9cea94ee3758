"""Reading arrays in pieces gives what the file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from features.arrays import load_arrays


@pytest.mark.parametrize("block", [1, 100, 1 << 22])
def test_arrays_come_back_whole_however_they_are_read(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.arrays._BLOCK_BYTES", block)
    rng = np.random.default_rng(0)
    saved: dict[str, npt.NDArray[Any]] = {
        "table": rng.normal(size=(37, 5)).astype(np.float32),
        "line": np.arange(23, dtype=np.int64),
        "mask": rng.random(9) < 0.5,
        "cube": rng.integers(0, 9, (3, 4, 5)).astype(np.int16),
        "nothing": np.zeros((0, 4), dtype=np.float32),
        "narrow": np.zeros((4, 0), dtype=np.float32),
        "number": np.array(2.5),
    }
    save_file(saved, tmp_path / "arrays.safetensors")
    found = load_arrays(tmp_path / "arrays.safetensors")
    assert found.keys() == saved.keys()
    for name, array in saved.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
        assert found[name].flags.writeable
