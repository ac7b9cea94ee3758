"""Trains RecTools' SASRec and writes its lists; run by command.py in an environment of its own.

Imports nothing of shelfwise; the two sides exchange files.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import MRR, NDCG, HitRate, Recall, calc_metrics
from rectools.models import SASRecModel

START = pd.Timestamp(datetime(2000, 1, 1))
KS = (10, 20)


class Epochs(Callback):
    """Saves the weights of every epoch, and stops training when another epoch would exceed the budget."""

    def __init__(self, folder: Path, max_seconds: float) -> None:
        self.folder = folder
        self.max_seconds = max_seconds
        self.started = time.perf_counter()
        self.seconds: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the weights, and check the budget."""
        elapsed = time.perf_counter() - self.started
        self.seconds.append(elapsed - sum(self.seconds))
        torch.save(pl_module.state_dict(), self.folder / f"epoch_{len(self.seconds)}.pt")
        loss = float(trainer.callback_metrics.get("train_loss", torch.nan))
        print(f"epoch {len(self.seconds)}: loss {loss:.4f}, {self.seconds[-1]:.0f} s", flush=True)  # noqa: T201
        if elapsed + self.seconds[-1] > self.max_seconds:
            trainer.should_stop = True


def interactions(user: np.ndarray, item: np.ndarray) -> pd.DataFrame:
    """Return a RecTools table; the order of rows becomes the order in time."""
    when = START + pd.to_timedelta(np.arange(len(user)), unit="s")
    return pd.DataFrame({Columns.User: user, Columns.Item: item, Columns.Weight: 1.0, Columns.Datetime: when})


def own_metrics(reco: pd.DataFrame, targets: pd.DataFrame) -> dict[str, float]:
    """Measure lists with RecTools' own metrics; ndcg is divided by what is achievable, as ours is."""
    metrics: dict[str, Any] = {}
    for k in KS:
        metrics[f"recall@{k}"] = Recall(k=k)
        metrics[f"ndcg@{k}"] = NDCG(k=k, divide_by_achievable=True)
        metrics[f"hit@{k}"] = HitRate(k=k)
        metrics[f"mrr@{k}"] = MRR(k=k)
    return {name: float(value) for name, value in calc_metrics(metrics, reco, interactions=targets).items()}


def lists_of(
    model: SASRecModel, data: Mapping[str, np.ndarray], window: str, depth: int, exclude: bool
) -> tuple[np.ndarray, dict[str, float]]:
    """Return a window's lists, int [queries, depth] padded with -1, and RecTools' metrics of them."""
    users = data[f"{window}_user"]
    histories = Dataset.construct(
        interactions(data[f"{window}_history_user"], data[f"{window}_history_item"])
    )
    reco = model.recommend(
        users=users, dataset=histories, k=depth, filter_viewed=exclude, on_unsupported_targets="ignore"
    )
    targets = pd.DataFrame(
        {Columns.User: data[f"{window}_target_user"], Columns.Item: data[f"{window}_target_item"]}
    )
    lists = np.full((len(users), depth), -1, dtype=np.int32)
    row = pd.Index(users).get_indexer(reco[Columns.User])
    lists[row, reco[Columns.Rank].to_numpy() - 1] = reco[Columns.Item].to_numpy()
    return lists, own_metrics(reco, targets)


def main() -> None:
    """Train, select the epoch on validation, write the test lists and the metrics."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    settings = json.loads((folder / "settings.json").read_text())
    data = np.load(folder / "data.npz")
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    seed_everything(settings["seed"], verbose=False)

    def trainer() -> Trainer:
        epochs = Epochs(folder, settings["max_seconds"])
        return Trainer(
            max_epochs=settings["epochs"], accelerator="cpu", devices=1, logger=False, callbacks=[epochs],
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip

    model = SASRecModel(
        n_blocks=settings["blocks"], n_heads=settings["heads"], n_factors=settings["n_factors"],
        dropout_rate=settings["dropout"], session_max_len=settings["max_length"], loss=settings["loss"],
        n_negatives=settings["negatives"], lr=settings["learning_rate"], batch_size=settings["batch_size"],
        epochs=settings["epochs"], get_trainer_func=trainer, recommend_torch_device="cpu", deterministic=True,
    )  # fmt: skip
    model.fit(Dataset.construct(interactions(data["train_user"], data["train_item"])))
    epochs = next(
        c for c in model.fit_trainer.callbacks if isinstance(c, Epochs)
    )  # RecTools copies its trainer
    depth, exclude = settings["depth"], settings["exclude_seen"]
    history, best = [], (-1.0, 0)
    for epoch in range(1, len(epochs.seconds) + 1):
        model.lightning_model.load_state_dict(torch.load(folder / f"epoch_{epoch}.pt", weights_only=True))
        _, measured = lists_of(model, data, "valid", 20, exclude)
        history.append(measured["ndcg@10"])
        best = max(best, (measured["ndcg@10"], -epoch))
    chosen = -best[1]
    model.lightning_model.load_state_dict(torch.load(folder / f"epoch_{chosen}.pt", weights_only=True))
    result: dict[str, Any] = {
        "model": "SASRec",
        "validation_ndcg@10": history,
        "epoch": chosen,
        "epoch_seconds": epochs.seconds,
    }
    for window in ("valid", "test"):
        lists, result[window] = lists_of(model, data, window, depth, exclude)
        np.save(folder / f"{window}_lists.npy", lists)
    for path in folder.glob("epoch_*.pt"):
        path.unlink()
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
