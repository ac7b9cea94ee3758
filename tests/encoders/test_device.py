"""Which device the key `device` names."""

import pytest
import torch

from conf.errors import InputError
from conf.schema import PipelineConfig
from conf.serving import ServeConfig
from encoders.device import resolve_device


def _gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_auto_takes_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, 0)
    assert resolve_device("auto") == torch.device("cpu")


def test_auto_takes_the_first_of_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, 2)
    assert resolve_device("auto") == torch.device("cuda", 0)
    assert resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cpu") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _gpus(monkeypatch, 0)
    with pytest.raises(InputError, match=r"^device=cuda: torch .* set device=cpu or device=auto$"):
        resolve_device("cuda")
    _gpus(monkeypatch, 2)
    with pytest.raises(InputError, match=r"^device=cuda:2: torch sees 2 GPUs, .* set device=cuda:1"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("value", ["gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0", ""])
def test_other_values_are_refused_when_the_configuration_is_built(value: str) -> None:
    for root in (PipelineConfig, ServeConfig):
        with pytest.raises(InputError, match=f"device must be auto, cpu, cuda or cuda:N, not '{value}'"):
            root(device=value)
