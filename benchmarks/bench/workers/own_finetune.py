"""Fine-tunes on pairs with this project: `own_finetune PAIRS PRECISION BATCH THREADS PROFILE OUTPUT`.

A pair is a history of two events. Without the corrections that pairs of other libraries lack (logQ, false
negatives, head), the loss is a softmax over the batch's texts but the anchor itself. Batches are the pairs in
order, and dropout is off, so that losses can be compared step by step.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytorch_lightning as pl
import torch

from benchmarks.bench.workers.measured import timed, top_operations
from benchmarks.embedding import flops
from conf.encoders import Precision, TextEncoderConfig
from encoders.contexts import ContextBatch, ContextSampler
from encoders.text.item_texts import ItemTexts
from encoders.text.precision import Precisions
from encoders.text.text_encoder import TextEncoder, load_text_encoder
from encoders.text.tokens import TokenArray
from encoders.training.stage_one import StageOne
from features.data.dataset import Events
from features.data.splits import Queries


class InOrder(ContextSampler):
    """Yields every history once, in order, instead of drawing."""

    def batches(self, count: int, pieces: int, seed: int) -> Iterator[ContextBatch]:
        """Yield the pairs of consecutive users."""
        item = self.events.item
        for start in range(0, count * pieces, pieces):
            user = np.arange(start, start + pieces, dtype=np.int32)
            weight = np.ones(pieces, dtype=np.float32)
            yield ContextBatch(user, item[2 * user][:, None], item[2 * user + 1], weight)


class Losses(pl.Callback):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:  # noqa: ANN401 - Lightning's
        """Read what the step logged."""
        self.values.append(float(trainer.callback_metrics["loss"]))


def settings_of(pairs: int, batch: int) -> TextEncoderConfig:
    """Return the settings of sentence-transformers' trainer and loss."""
    steps = pairs // batch
    return TextEncoderConfig(
        max_tokens=64, max_steps=steps, validate_every=steps, batch_size=batch, piece=2, window=1,
        projection=0, temperature=0.05, logq=False, mask_false_negatives=False, field_dropout=0.0,
        learning_rate=5e-5, weight_decay=0.01, warmup_fraction=0.1, clip_norm=1.0, recompute=False,
    )  # fmt: skip


def encoder_of(config: TextEncoderConfig) -> TextEncoder:
    """Return the encoder without dropout."""
    encoder = load_text_encoder(config)
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return encoder


def module_of(
    encoder: TextEncoder, config: TextEncoderConfig, pairs: list[list[str]], precision: Precision
) -> StageOne:
    """Return the module that trains on histories of two events, their texts tokenized."""
    texts = [text for pair in pairs for text in pair]
    count = len(texts)
    items, users = np.arange(count, dtype=np.int32), np.repeat(np.arange(len(pairs), dtype=np.int32), 2)
    offsets = np.arange(0, count + 1, 2, dtype=np.int64)
    events = Events(users, items, np.zeros(count, dtype=np.int8), np.tile([0, 1], len(pairs)), offsets)
    tokens = TokenArray.tokenized(encoder.tokenizer, texts, encoder.max_tokens)
    sampler = InOrder(events, offsets[1:], np.ones(1, dtype=np.float32), items, 1, 2)
    one = np.zeros(1, dtype=np.int64)
    valid = Queries(
        np.zeros(1, np.int32), one + 2, one, np.arange(2), np.zeros(1, np.int32), np.zeros(1, np.int32)
    )
    parts = polars.Series([[text] for text in texts])
    return StageOne(
        encoder, config, Precisions(precision, precision), sampler, ItemTexts(encoder, tokens, parts, 10_000),
        events, valid, 0,
    )  # fmt: skip


def train(module: StageOne) -> list[float]:
    """Train without validation, and return the loss of every step."""
    losses = Losses()
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        callbacks=[losses], enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module)
    return losses.values


def main() -> None:
    """Train, and write times, losses and the arithmetic of the work."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    source, precision, batch, threads, profile, output = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    pairs: list[list[str]] = json.loads(Path(source).read_text())
    config = settings_of(len(pairs), int(batch))
    encoder = encoder_of(config)

    def work() -> tuple[StageOne, list[float]]:
        """Tokenize, as the other trainer does while it trains, and train."""
        module = module_of(encoder, config, pairs, Precision(precision))
        return module, train(module)

    result: dict[str, Any]
    if int(profile):
        result = {"profile": top_operations(work)}
    else:
        (module, losses), figures = timed(work)
        result = {**figures, "loss": losses, "flop": flops(module.encoder, module.texts.whole)}
    Path(output).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
