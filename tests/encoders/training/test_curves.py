from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from encoders.training.curves import Curve, read_curves, thinned, write_curves
from encoders.training.fitting import fit
from tests.encoders.training.test_fitting import Scripted

CPU = torch.device("cpu")


class Counting(Scripted):
    """Logs its step as the loss, 12 steps an epoch."""

    step = 0

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(torch.zeros(12), batch_size=None)  # type: ignore[arg-type]

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        loss = super().training_step(batch, index)
        self.log("loss", float(self.current_epoch * 12 + index + 1))
        return loss


def test_the_curve_has_the_first_and_every_tenth_step_and_every_validation(tmp_path: Path) -> None:
    curve = fit(
        Counting([0.1, 0.3, 0.2]), tmp_path, max_epochs=3, patience=5, monitor="valid_recall", device=CPU
    ).curve
    assert curve.loss == [(1, 1.0), (10, 10.0), (20, 20.0), (30, 30.0)]
    assert [step for step, _ in curve.validation] == [12, 24, 36]
    assert [value for _, value in curve.validation] == pytest.approx([0.1, 0.3, 0.2])
    assert curve.metric == "recall@10"


def test_a_resumed_training_continues_its_curve(tmp_path: Path) -> None:
    metrics = [0.1, 0.3, 0.2]
    with pytest.raises(InterruptedError):
        fit(
            Counting(metrics, fail_in=1), tmp_path, max_epochs=3, patience=5, monitor="valid_recall",
            device=CPU,
        )  # fmt: skip
    resumed = fit(Counting(metrics), tmp_path, max_epochs=3, patience=5, monitor="valid_recall", device=CPU)
    whole = fit(
        Counting(metrics), tmp_path / "whole", max_epochs=3, patience=5, monitor="valid_recall", device=CPU
    )
    assert resumed.curve == whole.curve


def test_a_training_without_validation_has_its_losses_alone(tmp_path: Path) -> None:
    curve = fit(Counting([0.0] * 2), tmp_path, max_epochs=2, patience=1, monitor=None, device=CPU).curve
    assert curve == Curve([(1, 1.0), (10, 10.0), (20, 20.0)], [], None)


def test_many_points_become_means_of_neighbours() -> None:
    points = [(10, 1.0), (20, 3.0), (30, 5.0), (40, 6.0), (50, 9.0)]
    assert thinned(points, 5) == points
    assert thinned(points, 3) == [(20, 2.0), (40, 5.5), (50, 9.0)]
    assert thinned([], 3) == []
    assert len(thinned([(i, 0.0) for i in range(1001)])) <= 400


def test_curves_are_read_back_and_values_without_a_number_left_out(tmp_path: Path) -> None:
    curve = Curve.of([(1, 2.5), (10, math.nan), (20, math.inf)], [(12, 0.25)], "valid_ndcg")
    assert curve == Curve([(1, 2.5)], [(12, 0.25)], "ndcg@10")
    write_curves(tmp_path, {"ranker": curve})
    assert read_curves(tmp_path) == {"ranker": curve}
    assert read_curves(tmp_path / "nowhere") == {}
