from __future__ import annotations

import math
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from rich.console import Console
from torch.utils.data import DataLoader

from encoders.fitting import fit, forget


class Scripted(pl.LightningModule):
    """Adds one to its weight per step; says the validation metrics it was told to."""

    def __init__(self, metrics: list[float], fail_in: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.metrics = metrics
        self.fail_in = fail_in
        self.trained: list[int] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(torch.zeros(2), batch_size=None)  # type: ignore[arg-type]

    def training_step(self, _batch: torch.Tensor, index: int) -> torch.Tensor:
        if index == 1 and self.current_epoch == self.fail_in:
            raise InterruptedError
        if index == 0:
            self.trained.append(self.current_epoch)
        return -self.weight.sum()

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(torch.zeros(1), batch_size=None)  # type: ignore[arg-type]

    def validation_step(self, _batch: torch.Tensor, _index: int) -> None:
        self.log("valid_recall", self.metrics[self.current_epoch])


def run(module: Scripted, folder: Path, patience: int = 2, epochs: int = 6) -> Any:
    return fit(module, folder, max_epochs=epochs, patience=patience, monitor="valid_recall")


def test_the_best_weights_are_kept_and_training_stops_when_it_gets_no_better(tmp_path: Path) -> None:
    module = Scripted([0.1, 0.5, 0.4, 0.3, 0.9, 0.9])
    result = run(module, tmp_path)
    assert (result.best, result.epochs, result.history) == (
        pytest.approx(0.5),
        2,
        pytest.approx([0.1, 0.5, 0.4, 0.3]),
    )
    assert module.trained == [0, 1, 2, 3]
    assert module.weight.item() == 4.0, "two steps in each of the first two epochs"
    assert not module.training


def test_a_smaller_metric_can_be_the_better_one(tmp_path: Path) -> None:
    module = Scripted([0.5, 0.2, 0.4])
    result = fit(module, tmp_path, max_epochs=3, patience=5, monitor="valid_recall", mode="min")
    assert result.best == pytest.approx(0.2)
    assert (result.epochs, module.weight.item()) == (2, 4.0)


def test_without_a_metric_the_last_weights_count(tmp_path: Path) -> None:
    module = Scripted([0.0] * 3)
    result = fit(module, tmp_path, max_epochs=3, patience=1, monitor=None)
    assert math.isnan(result.best)
    assert (result.epochs, result.history, module.weight.item()) == (3, [], 6.0)


@pytest.mark.parametrize("fail_in", [0, 1, 2, 3])
def test_a_run_cut_off_in_any_epoch_goes_on_from_the_last_finished_one(tmp_path: Path, fail_in: int) -> None:
    metrics = [0.1, 0.5, 0.4, 0.3, 0.9, 0.9]
    with pytest.raises(InterruptedError):
        run(Scripted(metrics, fail_in), tmp_path)
    module = Scripted(metrics)
    result = run(module, tmp_path)
    assert module.trained == list(range(fail_in, 4))
    assert (result.history, result.epochs) == (pytest.approx([0.1, 0.5, 0.4, 0.3]), 2)
    assert module.weight.item() == 4.0


@pytest.mark.parametrize("metrics", [[0.1, 0.5, 0.4, 0.3, 0.9, 0.9], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])
def test_a_finished_run_is_not_trained_any_further(tmp_path: Path, metrics: list[float]) -> None:
    first = run(Scripted(metrics), tmp_path)
    again = Scripted(metrics)
    assert run(again, tmp_path) == first
    assert again.trained == []
    assert again.weight.item() == 2.0 * first.epochs


def test_a_finished_run_without_a_metric_is_not_trained_any_further(tmp_path: Path) -> None:
    for module in (Scripted([0.0] * 2), Scripted([0.0] * 2)):
        fit(module, tmp_path, max_epochs=2, patience=1, monitor=None)
        assert module.weight.item() == 4.0
    assert module.trained == []


def test_a_terminal_without_a_bar_reads_one_line_per_epoch(tmp_path: Path) -> None:
    out = StringIO()
    fit(
        Scripted([0.25, 0.5]),
        tmp_path,
        max_epochs=2,
        patience=3,
        monitor="valid_recall",
        console=Console(file=out, width=100),
    )
    assert out.getvalue().splitlines() == [
        "  Scripted epoch 1: valid_recall 0.2500",
        "  Scripted epoch 2: valid_recall 0.5000",
    ]


def test_forgetting_removes_the_checkpoints_and_is_content_with_none(tmp_path: Path) -> None:
    run(Scripted([0.1] * 6), tmp_path / "run", epochs=1)
    assert (tmp_path / "run" / "last.ckpt").is_file()
    forget(tmp_path / "run")
    forget(tmp_path / "run")
    assert not (tmp_path / "run").exists()
