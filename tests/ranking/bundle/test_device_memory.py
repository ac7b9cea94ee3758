"""Whether a version fits on a GPU, and what is said where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
import torch

from conf.errors import InputError
from encoders.device import CPU
from ranking.bundle.device_memory import WORKING_BYTES, bytes_needed, device_memory_guard

GPU = torch.device("cuda", 1)
GB = 10**9


def version(folder: Path) -> Path:
    """Files of known sizes, in bytes; what a GPU never sees is large."""
    sizes = {
        "text_encoder/model.safetensors": 1000, "text_encoder/tokenizer.json": 10**6,
        "user_encoder.safetensors": 200, "ranker.safetensors": 30, "catalogue.parquet": 10**6,
        "item_vectors.npy": 4000, "text_vectors.npy": 8000, "factors.safetensors": 1600,
    }  # fmt: skip
    for name, size in sizes.items():
        path = folder / "v7" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    return folder / "v7"


def memory(monkeypatch: pytest.MonkeyPatch, free: int, total: int = 80 * GB) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, total))


def test_weights_count_once_and_vectors_in_two_precisions(tmp_path: Path) -> None:
    # 1000 + 200 + 30 of weights, and 3 / 2 of 4000 + 8000 + 8000 (affinity) + 1600 / 2 of vectors.
    assert bytes_needed(version(tmp_path)) - WORKING_BYTES == 1230 + 31_200
    assert bytes_needed(tmp_path / "nothing") == WORKING_BYTES


def test_what_fits_is_loaded_and_a_byte_less_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, loaded = version(tmp_path), []
    weights = WORKING_BYTES + 1230  # alone it may do without its vectors, beside another one it may not
    memory(monkeypatch, weights)
    with device_memory_guard(folder, GPU):
        loaded.append("enough")
    memory(monkeypatch, bytes_needed(folder))
    with device_memory_guard(folder, GPU, beside=True):
        loaded.append("enough")
    memory(monkeypatch, weights - 1)
    with pytest.raises(InputError) as alone, device_memory_guard(folder, GPU):
        loaded.append("too much")
    memory(monkeypatch, bytes_needed(folder) - 1)
    with pytest.raises(InputError) as beside, device_memory_guard(folder, GPU, beside=True):
        loaded.append("too much")
    assert loaded == ["enough", "enough"]
    assert str(alone.value) == (
        "cuda:1 Card 1 has too little memory for model v7: it takes about 2.1 GB, 2.1 of 80.0 are free; "
        "nvidia-smi shows what uses it; make room, or set device=cpu"
    )
    assert str(beside.value) == (
        "cuda:1 Card 1 has too little memory for model v7 beside the one that answers: it takes about "
        "2.1 GB, 2.1 of 80.0 are free; a restart of the server changes over with one model at a time"
    )


def test_memory_that_runs_out_while_loading_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(monkeypatch, 3 * GB)
    message = r"^cuda:1 Card 1 .* it took more than there was, 3\.0 of 80\.0 are"
    with pytest.raises(InputError, match=message), device_memory_guard(version(tmp_path), GPU):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
    with pytest.raises(ValueError, match="damaged"), device_memory_guard(version(tmp_path), GPU):
        raise ValueError("damaged")


def test_a_gpu_that_cannot_be_used_is_named_with_its_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(_: object) -> NoReturn:
        raise RuntimeError("CUDA error: devices are busy\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(torch.cuda, "mem_get_info", busy)
    with pytest.raises(InputError) as caught, device_memory_guard(version(tmp_path), GPU):
        pass
    assert str(caught.value) == (
        "device=cuda:1 cannot be used (CUDA error: devices are busy); nvidia-smi shows who uses it; "
        "free it, or set device=cpu"
    )


def test_a_cpu_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", asked.append)
    with device_memory_guard(tmp_path / "nothing", CPU):
        loaded = True
    assert loaded
    assert asked == []
