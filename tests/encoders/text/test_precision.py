"""The arithmetic that `auto` takes: the faster one, measured once for a machine."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from conf.encoders import Precision
from encoders.text import precision
from encoders.text.precision import (
    EMBEDDING,
    MEMORY,
    TRAINING,
    Precisions,
    choose_precision,
    serving_precision,
)
from encoders.text.text_encoder import TextEncoder
from tests.second_device import second_device

BOTH = (EMBEDDING, TRAINING)
CPU = torch.device("cpu")
FASTER_BF16 = {"fp32": 2.0, "bf16": 1.0}
FASTER_FP32 = {"fp32": 1.0, "bf16": 2.0}


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that has instructions for bf16."""
    monkeypatch.setattr(precision, "native_bf16", lambda device: True)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, native: None) -> list[str]:
    """Which uses were timed: embedding is faster in bf16, training in fp32."""
    uses: list[str] = []

    def timed(use: str) -> Callable[[TextEncoder], str]:
        return lambda encoder: use

    def figures(use: str) -> dict[str, float]:
        uses.append(use)
        return dict(FASTER_BF16 if use == EMBEDDING else FASTER_FP32)

    monkeypatch.setattr(precision, "_embedding", timed(EMBEDDING))
    monkeypatch.setattr(precision, "_training", timed(TRAINING))
    monkeypatch.setattr(precision, "_time", figures)
    return uses


def choose(encoder: TextEncoder, folder: Path, uses: tuple[str, ...] = BOTH) -> tuple[Precisions, str]:
    """Choose with `auto`; return the choice and what was printed."""
    console = Console(file=io.StringIO(), width=200)
    chosen = choose_precision(Precision.auto, encoder, folder, console, uses)
    assert isinstance(console.file, io.StringIO)
    return chosen, console.file.getvalue()


@pytest.mark.parametrize(
    ("fp32", "bf16", "expected"),
    [(2.0, 1.0, Precision.bf16), (1.0, 2.0, Precision.fp32), (1.05, 1.0, Precision.fp32)],
)
def test_the_faster_wins_and_fp32_where_it_matters_little(
    fp32: float, bf16: float, expected: Precision
) -> None:
    assert precision.faster({"fp32": fp32, "bf16": bf16}) is expected


def test_each_use_is_measured_once_and_said_in_one_line(
    encoder: TextEncoder, tmp_path: Path, measured: list[str]
) -> None:
    folder = tmp_path / "work"
    chosen, said = choose(encoder, folder)
    assert chosen == Precisions(Precision.bf16, Precision.fp32)
    assert measured == [EMBEDDING, TRAINING]
    assert said == (
        "text encoder: embedding in bf16 (fp32 128 and bf16 256 tokens/s of a core); "
        "training in fp32 (fp32 256 and bf16 128 tokens/s of a core)\n"
    )
    assert choose(encoder, folder) == (chosen, ""), "a resumed run takes the same, silently"
    assert measured == [EMBEDDING, TRAINING]


def test_what_is_not_asked_for_is_not_measured(
    encoder: TextEncoder, tmp_path: Path, measured: list[str]
) -> None:
    assert choose(encoder, tmp_path, (EMBEDDING,))[0] == Precisions(Precision.bf16, Precision.fp32)
    assert measured == [EMBEDDING]
    choose(encoder, tmp_path)
    assert measured == [EMBEDDING, TRAINING], "the figures that are there are kept"


def test_figures_in_the_file_decide(encoder: TextEncoder, tmp_path: Path, measured: list[str]) -> None:
    choose(encoder, tmp_path)
    content = json.loads((tmp_path / MEMORY).read_text())
    content["seconds"] = {EMBEDDING: FASTER_FP32, TRAINING: FASTER_BF16}
    (tmp_path / MEMORY).write_text(json.dumps(content))
    assert choose(encoder, tmp_path)[0] == Precisions(Precision.fp32, Precision.bf16)
    assert measured == [EMBEDDING, TRAINING]


@pytest.mark.parametrize("key", ["cpu", "torch", "model"])
def test_figures_of_another_machine_do_not_count(
    encoder: TextEncoder, tmp_path: Path, measured: list[str], key: str
) -> None:
    choose(encoder, tmp_path)
    content = json.loads((tmp_path / MEMORY).read_text())
    assert all(content["machine"].values())
    content["machine"][key] = "another"
    content["seconds"] = {EMBEDDING: FASTER_FP32, TRAINING: FASTER_BF16}
    (tmp_path / MEMORY).write_text(json.dumps(content))
    assert choose(encoder, tmp_path)[0] == Precisions(Precision.bf16, Precision.fp32)
    assert measured == [EMBEDDING, TRAINING] * 2


@pytest.mark.parametrize("damaged", ["", "{", "[]", "null", '{"machine": 1}', "MACHINE", "SECONDS"])
def test_a_damaged_file_is_measured_anew(
    encoder: TextEncoder, tmp_path: Path, measured: list[str], damaged: str
) -> None:
    choose(encoder, tmp_path)
    machine = json.loads((tmp_path / MEMORY).read_text())["machine"]
    if damaged == "MACHINE":
        damaged = json.dumps({"machine": machine, "seconds": [1]})
    if damaged == "SECONDS":
        damaged = json.dumps({"machine": machine, "seconds": {EMBEDDING: {"fp32": "soon", "bf16": 1}}})
    (tmp_path / MEMORY).write_text(damaged)
    assert choose(encoder, tmp_path)[0] == Precisions(Precision.bf16, Precision.fp32)
    assert measured == [EMBEDDING, TRAINING] * 2
    assert choose(encoder, tmp_path)[1] == "", "and kept again"


@pytest.mark.parametrize("told", [Precision.fp32, Precision.bf16])
def test_a_precision_that_is_set_is_taken(
    encoder: TextEncoder, tmp_path: Path, measured: list[str], told: Precision
) -> None:
    console = Console(file=io.StringIO())
    assert choose_precision(told, encoder, tmp_path, console, BOTH) == Precisions(told, told)
    assert measured == []
    assert not (tmp_path / MEMORY).exists()


def test_without_instructions_for_bf16_nothing_is_measured(
    encoder: TextEncoder, tmp_path: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "native_bf16", lambda device: False)
    assert choose(encoder, tmp_path)[0] == Precisions(Precision.fp32, Precision.fp32)
    assert measured == []


def test_a_gpu_that_has_bf16_takes_it(encoder: TextEncoder, tmp_path: Path, measured: list[str]) -> None:
    with second_device() as device:
        encoder.to(device)
        assert choose(encoder, tmp_path)[0] == Precisions(Precision.bf16, Precision.bf16)
    assert measured == []


def test_measuring_leaves_weights_gradients_mode_and_random_numbers_as_they_were(
    encoder: TextEncoder, tmp_path: Path, native: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "SECONDS", 0.01)
    encoder.train()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    choose(encoder, tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(encoder.state_dict()[name], value) for name, value in before.items())
    assert all(p.grad is None for p in encoder.parameters())
    assert encoder.training
    assert torch.get_num_threads() == 1
    seconds = json.loads((tmp_path / MEMORY).read_text())["seconds"]
    assert all(0 < seconds[use][name] < 10 for use in BOTH for name in ("fp32", "bf16"))


def test_a_server_rounds_as_its_bundle_did_where_it_can(
    monkeypatch: pytest.MonkeyPatch, native: None
) -> None:
    assert serving_precision("bf16", CPU) is Precision.bf16
    assert serving_precision("fp32", CPU) is Precision.fp32
    assert serving_precision("auto", CPU) is Precision.fp32
    monkeypatch.setattr(precision, "native_bf16", lambda device: False)
    assert serving_precision("bf16", CPU) is Precision.fp32
