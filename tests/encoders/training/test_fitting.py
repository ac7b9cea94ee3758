from __future__ import annotations

import math
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import RichProgressBar
from rich.console import Console
from torch.utils.data import DataLoader

from encoders.training.callbacks import Bar
from encoders.training.fitting import delete_checkpoints, fit, running_average

CPU = torch.device("cpu")


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
    return fit(module, folder, max_epochs=epochs, patience=patience, monitor="valid_recall", device=CPU)


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
    result = fit(module, tmp_path, max_epochs=3, patience=5, monitor="valid_recall", device=CPU, mode="min")
    assert result.best == pytest.approx(0.2)
    assert (result.epochs, module.weight.item()) == (2, 4.0)


def test_without_a_metric_the_last_weights_count(tmp_path: Path) -> None:
    module = Scripted([0.0] * 3)
    result = fit(module, tmp_path, max_epochs=3, patience=1, monitor=None, device=CPU)
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
        fit(module, tmp_path, max_epochs=2, patience=1, monitor=None, device=CPU)
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
        device=CPU,
        console=Console(file=out, width=100),
    )
    assert out.getvalue().splitlines() == [
        "  Scripted epoch 1: valid_recall 0.2500",
        "  Scripted epoch 2: valid_recall 0.5000",
    ]


def test_forgetting_removes_the_checkpoints_and_is_content_with_none(tmp_path: Path) -> None:
    run(Scripted([0.1] * 6), tmp_path / "run", epochs=1)
    assert (tmp_path / "run" / "last.ckpt").is_file()
    delete_checkpoints(tmp_path / "run")
    delete_checkpoints(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def weighing(value: float) -> torch.nn.Linear:
    """A module of one weight."""
    module = torch.nn.Linear(1, 1, bias=False)
    return set_to(module, value)


def set_to(module: torch.nn.Linear, value: float) -> torch.nn.Linear:
    with torch.no_grad():
        module.weight.fill_(value)
    return module


def averages(steps: float, values: list[float]) -> list[float]:
    """The average after each step, the module having these weights."""
    module = weighing(9.0)
    average = running_average(module, steps)
    found = []
    for value in values:
        average.update_parameters(set_to(module, value))
        found.append(next(average.parameters()).item())
        assert module.weight.item() == value
    return found


def test_a_running_average_by_hand() -> None:
    """Over four steps the newest weighs a quarter; the first step is taken as it is."""
    assert averages(4.0, [2.0, 6.0, 0.0, -1.0]) == [2.0, 3.0, 2.25, 1.4375]


def test_a_step_as_long_ago_as_it_reaches_weighs_an_eth_of_the_newest() -> None:
    steps = 50
    # A step up, that many steps ago, is still missing by 1/e.
    assert averages(steps, [0.0] + [1.0] * steps)[-1] == pytest.approx(1 - math.exp(-1), abs=0.01)


@pytest.mark.parametrize("steps", [0.0, 0.5, 1.0])
def test_an_average_over_no_more_than_a_step_is_the_module(steps: float) -> None:
    values = torch.randn(20, generator=torch.Generator().manual_seed(0)).tolist()
    assert averages(steps, values) == values


def test_an_average_starts_as_a_copy_learns_nothing_itself_and_follows_buffers() -> None:
    module = torch.nn.BatchNorm1d(2)
    average = running_average(module, 10.0)
    assert isinstance(average.module, torch.nn.BatchNorm1d)
    assert average.module is not module
    assert torch.equal(average.module.weight, module.weight)
    assert all(p.requires_grad for p in module.parameters())
    assert not any(p.requires_grad for p in average.parameters())
    module(torch.tensor([[1.0, 5.0], [3.0, 9.0]]))
    average.update_parameters(module)
    own, kept = module.running_mean, average.module.running_mean
    assert own is not None
    assert kept is not None
    assert own.any()
    assert torch.equal(own, kept)


class Averaged(Scripted):
    """Averages over three steps a weight that grows by one per step."""

    def __init__(self, metrics: list[float], fail_in: int | None = None) -> None:
        super().__init__(metrics, fail_in)
        self.inner = weighing(0.0)
        self.average = running_average(self.inner, 3.0)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        return super().training_step(batch, index) - self.inner.weight.sum()

    def on_train_batch_end(self, outputs: object, batch: torch.Tensor, batch_idx: int) -> None:
        self.average.update_parameters(self.inner)


@pytest.mark.parametrize("fail_in", [0, 1, 2])
def test_a_resumed_run_goes_on_averaging(tmp_path: Path, fail_in: int) -> None:
    metrics = [0.1, 0.2, 0.5, 0.4]
    whole = Averaged(metrics)
    run(whole, tmp_path / "whole", epochs=4)
    with pytest.raises(InterruptedError):
        run(Averaged(metrics, fail_in), tmp_path / "cut", epochs=4)
    resumed = Averaged(metrics)
    run(resumed, tmp_path / "cut", epochs=4)
    expected = 1.0
    for step in range(2, 7):  # two steps in each of three epochs
        expected += (step - expected) / 3
    assert whole.inner.weight.item() == 6.0
    assert next(whole.average.parameters()).item() == pytest.approx(expected)
    for name, values in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], values), name


def test_a_bar_reads_the_metrics_of_a_gpu_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def metrics(_: object, trainer: Any, __: object) -> dict[str, Any]:
        read.append(trainer.global_step)
        return {"loss": trainer.global_step}

    monkeypatch.setattr(RichProgressBar, "get_metrics", metrics)
    bar, trainer = Bar(3), SimpleNamespace(training=True)
    shown = []
    for trainer.global_step in range(1, 8):
        shown.append(bar.get_metrics(trainer, None)["loss"])  # type: ignore[arg-type]
    assert (read, shown) == ([1, 3, 6], [1, 1, 3, 3, 3, 6, 6])
    trainer.training, trainer.global_step = False, 8
    assert bar.get_metrics(trainer, None) == {"loss": 8}, "a validation's are read"  # type: ignore[arg-type]
