"""Trains the towers and writes recall by time: `own_towers FOLDER PROFILE OVERRIDE... OUTPUT`.

The time starts before the item texts are encoded and includes every validation. With PROFILE 1 it counts the
arithmetic of one epoch instead, and then profiles another one, as both make an epoch slower.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench.workers.measured import top_operations
from conf.composition.compose import compose_command
from conf.encoders import Precision
from encoders.device import CPU
from encoders.text.compiled_text_encoder import native_bf16
from encoders.text.embedding import embed_texts
from encoders.text.text_encoder import load_text_encoder
from encoders.training.fit_towers import train_towers
from encoders.training.train import try_split
from features.data.dataset import load_dataset


class Stamped(io.StringIO):
    """Keeps what is written with the seconds since its creation."""

    def __init__(self) -> None:
        super().__init__()
        self.began = time.perf_counter()
        self.lines: list[tuple[float, str]] = []

    def write(self, text: str) -> int:
        """Keep a text."""
        self.lines.append((time.perf_counter() - self.began, text))
        return len(text)


def main() -> None:
    """Encode, train, and write the curve of validation recall."""
    folder, profile, overrides = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:-1]
    output = Path(sys.argv[-1])
    config = compose_command("train-encoder", [*overrides, "experiment=quick"])
    if config.threads:
        torch.set_num_threads(config.threads)
    dataset = load_dataset(Path(config.work_dir) / "dataset")
    split = try_split(config, dataset)
    assert split is not None
    checkpoints = folder / "checkpoints"

    def train(epochs: int, console: Console) -> None:
        shutil.rmtree(checkpoints, ignore_errors=True)
        train_towers(config, dataset, vectors, split.train_end, split, True, epochs, checkpoints, console)

    result: dict[str, object]
    stamped = Stamped()
    encoder = load_text_encoder(config.text_encoder).eval()
    precision = Precision.bf16 if native_bf16(CPU) else Precision.fp32
    vectors = embed_texts(encoder, dataset.catalogue.texts, encoder.prompts.passage, precision)
    encoded = time.perf_counter() - stamped.began
    if profile:
        quiet = Console(file=io.StringIO())
        with FlopCounterMode(display=False) as counter:
            train(1, quiet)
        result = {
            "flop": counter.get_total_flops(), "profile": top_operations(lambda: train(1, quiet)),
        }  # fmt: skip
    else:
        train(config.user_encoder.epochs, Console(file=stamped, width=200, force_terminal=False))
        seconds = time.perf_counter() - stamped.began
        curve = [
            (when, float(found.group(1)))
            for when, text in stamped.lines
            for found in re.finditer(r"valid_recall (\d\.\d+)", text)
        ]
        result = {"curve": curve, "seconds": seconds - encoded, "encode_seconds": encoded}
    output.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
