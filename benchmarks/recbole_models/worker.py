"""Trains a model of RecBole and writes its lists; run by command.py in an environment of its own.

Imports nothing of shelfwise; the two sides exchange files. Training, early stopping and defaults are
RecBole's; only the lists are made one history at a time, because RecBole does not exclude seen items for
sequential models.
"""

from __future__ import annotations

import argparse
import json
import re
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.utils import get_model, get_trainer, init_seed

NAME = "shop"
BATCH = 256


class OutOfTimeError(Exception):
    """Another epoch would not fit the budget."""


def write_atomic_files(folder: Path, data: Mapping[str, np.ndarray]) -> None:
    """Write all events in order (the position is the time) and the words of each item's text."""
    parts = [("train_user", "train_item"), ("valid_target_user", "valid_target_item"),
             ("test_target_user", "test_target_item")]  # fmt: skip
    user = np.concatenate([data[u] for u, _ in parts])
    item = np.concatenate([data[i] for _, i in parts])
    with (folder / f"{NAME}.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        file.writelines(f"{u}\t{i}\t{place}\n" for place, (u, i) in enumerate(zip(user, item, strict=True)))
    with (folder / f"{NAME}.item").open("w") as file:
        file.write("item_id:token\tclass:token_seq\n")
        for row, text in enumerate(data["item_text"].tolist()):
            words = " ".join(dict.fromkeys(re.findall(r"\w+", text.lower()))) or "nothing"
            file.write(f"{row}\t{words}\n")


def lists_of(
    model: Any,  # noqa: ANN401 - RecBole is not typed
    dataset: Any,  # noqa: ANN401
    data: Mapping[str, np.ndarray],
    window: str,
    settings: Mapping[str, Any],
) -> np.ndarray:
    """Return a window's lists, int [queries, depth] of item rows, padded with -1."""
    tokens = dataset.field2id_token["item_id"]
    row_of = np.array([-1, *(int(token) for token in tokens[1:])])
    id_of = np.zeros(len(data["item_text"]), dtype=np.int64)
    id_of[row_of[1:]] = np.arange(1, len(tokens))
    users = data[f"{window}_user"]
    owner, events = data[f"{window}_history_user"], id_of[data[f"{window}_history_item"]]
    begins, ends = np.searchsorted(owner, users), np.searchsorted(owner, users, side="right")
    history = {u: events[a:b] for u, a, b in zip(users, begins, ends, strict=True)}
    depth, longest = settings["depth"], settings["max_length"]
    lists = np.full((len(users), depth), -1, dtype=np.int32)
    for start in range(0, len(users), BATCH):
        part = users[start : start + BATCH]
        items = np.zeros((len(part), longest), dtype=np.int64)
        lengths = np.zeros(len(part), dtype=np.int64)
        for place, u in enumerate(part):
            newest = history[u][-longest:]
            items[place, : len(newest)], lengths[place] = newest, len(newest)
        batch = Interaction({
            "item_id_list": torch.from_numpy(items), "item_length": torch.from_numpy(lengths),
            "user_id": torch.ones(len(part), dtype=torch.int64),
        })  # fmt: skip
        with torch.no_grad():
            scores = model.full_sort_predict(batch).view(len(part), -1)
        scores[:, 0] = -torch.inf
        if settings["exclude_seen"]:
            for place, u in enumerate(part):
                scores[place, torch.from_numpy(history[u])] = -torch.inf
        best, ids = scores[:, : len(tokens)].topk(min(depth, len(tokens)), dim=1)
        found = np.where(torch.isfinite(best).numpy(), row_of[ids.numpy()], -1)
        lists[start : start + len(part), : found.shape[1]] = found
    return lists


def main() -> None:
    """Train until early stopping or the end of the budget, and write the lists of the best epoch."""
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder.resolve()
    settings = json.loads((folder / "settings.json").read_text())
    data = np.load(folder / "data.npz")
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    (folder / NAME).mkdir(exist_ok=True)
    write_atomic_files(folder / NAME, data)
    config = Config(model=settings["model"], dataset=NAME, config_dict={
        "data_path": str(folder), "checkpoint_dir": str(folder), "use_gpu": False, "show_progress": False,
        "seed": settings["seed"], "reproducibility": True, "epochs": settings["epochs"],
        "train_batch_size": settings["batch_size"], "MAX_ITEM_LIST_LENGTH": settings["max_length"],
        "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]},
        "train_neg_sample_args": None, "loss_type": "CE", "valid_metric": "NDCG@10", "topk": [10],
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        **settings["set"],
    })  # fmt: skip
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    model = get_model(config["model"])(config, train.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    began, history = time.perf_counter(), []

    def after_epoch(epoch: int, score: float) -> None:
        elapsed = time.perf_counter() - began
        history.append((float(score), elapsed))
        print(f"epoch {epoch + 1}: validation ndcg@10 {score:.4f}, {elapsed:.0f} s", flush=True)  # noqa: T201
        if elapsed * (len(history) + 1) / len(history) > settings["max_seconds"]:
            raise OutOfTimeError

    with suppress(OutOfTimeError):
        trainer.fit(train, valid, verbose=False, saved=True, callback_fn=after_epoch)
    # The file is RecBole's own, just written; it holds more than tensors.
    saved = torch.load(trainer.saved_model_file, weights_only=False)
    model.load_state_dict(saved["state_dict"])
    model.load_other_parameter(saved.get("other_parameter"))
    model.eval()
    for window in ("valid", "test"):
        np.save(folder / f"{window}_lists.npy", lists_of(model, dataset, data, window, settings))
    Path(trainer.saved_model_file).unlink()
    scores = [score for score, _ in history]
    times = np.diff([0.0, *(elapsed for _, elapsed in history)]).tolist()
    result = {
        "model": settings["model"], "epoch": int(np.argmax(scores)) + 1, "epoch_seconds": times,
        "validation_ndcg@10 (seen items not left out)": scores,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
