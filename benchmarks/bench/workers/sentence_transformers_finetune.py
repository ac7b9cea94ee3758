"""Fine-tunes on pairs with sentence-transformers' trainer: `PAIRS MODEL PRECISION BATCH THREADS OUTPUT`.

Imports nothing of shelfwise. Batches are the pairs in order; the loss compares an anchor with all positives
and with the other anchors. Dropout is off, so that losses can be compared step by step.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.losses import MultipleNegativesRankingLoss
from torch.utils.data import BatchSampler, SequentialSampler


class InOrder(SentenceTransformerTrainer):
    """The library's trainer, with the batches as they are written."""

    def get_batch_sampler(
        self,
        dataset: Dataset,
        batch_size: int,
        drop_last: bool,
        *_: Any,  # noqa: ANN401 - what the library passes besides
        **__: Any,  # noqa: ANN401
    ) -> BatchSampler:
        """Return consecutive pairs."""
        return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)


def main() -> None:
    """Train with the same optimiser and schedule, and write times and losses."""
    source, model, precision, batch, threads, output = sys.argv[1:]
    torch.set_num_threads(int(threads))
    pairs = json.loads(Path(source).read_text())
    encoder = SentenceTransformer(model, device="cpu")
    encoder.max_seq_length = 64
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    data = Dataset.from_dict({"anchor": [a for a, _ in pairs], "positive": [b for _, b in pairs]})
    loss = MultipleNegativesRankingLoss(encoder, scale=20.0, directions=("query_to_doc", "query_to_query"))
    steps = len(pairs) // int(batch)
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder, num_train_epochs=1, per_device_train_batch_size=int(batch),
            learning_rate=5e-5, weight_decay=0.01, warmup_steps=max(1, steps // 10),
            lr_scheduler_type="linear", max_grad_norm=1.0, logging_steps=1, save_strategy="no",
            report_to="none", use_cpu=True, bf16=precision == "bf16", dataloader_drop_last=True,
            disable_tqdm=True, seed=0,
        )  # fmt: skip
        trainer = InOrder(model=encoder, args=arguments, train_dataset=data, loss=loss)
        began, cpu = time.perf_counter(), time.process_time()
        trainer.train()
        result: dict[str, Any] = {
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - cpu,
        }
    result["loss"] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    Path(output).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
