"""Embedding beside `SentenceTransformer.encode`, on the same texts in one process.

    python -m benchmarks.embedding --items items.parquet --column title --json embedding.json
    python -m benchmarks.embedding --generated 200000 --only fp32 bf16

Runs alternate; the best of each is reported, because other load only makes a run slower. On a CPU operations
are divided by CPU time, which is meaningful on a busy machine, too (with several threads set
OMP_WAIT_POLICY=PASSIVE, or busy-waiting counts as work); on a GPU by wall time. The limit is the rate of the
model's largest layer alone, in the same unit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from conf.encoders import Precision, TextEncoderConfig
from encoders.device import resolve_device
from encoders.text.compiled_text_encoder import CPU_TOKENS, GPU_TOKENS, PackedLinear, can_pack, native_bf16
from encoders.text.embedding import embed_texts
from encoders.text.text_encoder import TextEncoder, bundled_model_path, load_text_encoder
from encoders.text.tokens import TokenArray
from features.data.dataset import FloatArray

OTHER = "sentence-transformers"
WORDS = (
    "trail boots backpack summit tent compass canteen pole ridge valley pan whisk oven skillet spatula ladle "
    "recipe grater kettle apron rose soil shovel hedge seed compost rake bloom fence hose red blue green"
).split()


@dataclass(frozen=True)
class Rate:
    """The best run of one method."""

    name: str
    seconds: float
    cpu_seconds: float
    least_cosine: float
    """The smallest cosine of a vector with that of sentence-transformers in fp32, or of the first way."""


def generated(count: int) -> list[str]:
    """Return distinct short texts of six to eight words."""
    rng = np.random.default_rng(0)
    return [f"{' '.join(rng.choice(WORDS, rng.integers(4, 7)))} no {n}" for n in range(count)]


def flops(encoder: TextEncoder, tokens: TokenArray) -> float:
    """Return the floating-point operations of encoding texts: products with weights, and attention."""
    config = encoder.backbone.config
    layers, width = int(config.num_hidden_layers), int(config.hidden_size)
    per_token = 2 * layers * (4 * width * width + 2 * width * int(config.intermediate_size))
    lengths = tokens.lengths.astype(np.float64)
    return float(per_token * lengths.sum() + 4 * layers * width * (lengths**2).sum())


def limit(encoder: TextEncoder, precision: Precision, device: torch.device) -> float:
    """Return the operations per second of the model's largest layer alone."""
    config = encoder.backbone.config
    dtype = torch.bfloat16 if precision is Precision.bf16 else torch.float32
    linear = nn.Linear(config.hidden_size, config.intermediate_size).to(device, dtype)
    layer = PackedLinear(linear, dtype) if can_pack(device, dtype) else linear
    rows = CPU_TOKENS if device.type == "cpu" else GPU_TOKENS
    states = torch.randn(rows, config.hidden_size, device=device, dtype=dtype)

    def run() -> None:
        layer(states)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with torch.no_grad():
        least = min(counted(*timed(run), device) for _ in range(20))
    return 2.0 * rows * int(config.hidden_size) * int(config.intermediate_size) / least


def counted(clock: float, cpu: float, device: torch.device) -> float:
    """Return the seconds that operations are divided by."""
    return cpu if device.type == "cpu" else clock


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Return wall time and CPU time in seconds."""
    clock, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - clock, time.process_time() - cpu


def compare(ways: dict[str, Callable[[], FloatArray]], rounds: int) -> list[Rate]:
    """Return the best run of each method; methods alternate."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    vectors: dict[str, FloatArray] = {}
    for _ in range(rounds):
        for name, way in ways.items():

            def run(name: str = name, way: Callable[[], FloatArray] = way) -> None:
                vectors[name] = way()

            taken[name].append(timed(run))
    first = next(iter(vectors.values()))
    return [
        Rate(
            name,
            min(clock for clock, _ in times),
            min(cpu for _, cpu in times),
            least_cosine(vectors[name], first),
        )
        for name, times in taken.items()
    ]


def least_cosine(vectors: FloatArray, others: FloatArray) -> float:
    """Return the smallest cosine of unit vectors with others, row by row."""
    return float((vectors * others).sum(1).min())


def ways_of(
    encoder: TextEncoder, model: str, texts: list[str], device: torch.device, only: Sequence[str]
) -> dict[str, Callable[[], FloatArray]]:
    """Return the methods by name, tokenisation and preparation included."""
    ways: dict[str, Callable[[], FloatArray]] = {}
    if OTHER in only:
        from sentence_transformers import SentenceTransformer

        other = SentenceTransformer(model, device=str(device))
        other.max_seq_length = encoder.max_tokens

        def encode() -> FloatArray:
            return np.asarray(other.encode(texts, normalize_embeddings=True, show_progress_bar=False))

        ways[OTHER] = encode
    for precision in (Precision.fp32, Precision.bf16):
        if precision.value in only and (precision is Precision.fp32 or native_bf16(device)):
            ways[precision.value] = partial(embed_texts, encoder, texts, "", precision)
    return ways


def measure(options: argparse.Namespace, console: Console) -> dict[str, object]:
    """Measure, print a table and return the result."""
    device = resolve_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.items:
        column = pl.read_parquet(options.items)[options.column]
        texts = list(dict.fromkeys(column.drop_nulls().to_list()))[: options.count]
    else:
        texts = generated(options.generated)
    config = TextEncoderConfig(model=options.model, max_tokens=options.max_tokens)
    encoder = load_text_encoder(config).to(device).eval()
    tokens = TokenArray.tokenized(encoder.tokenizer, texts, encoder.max_tokens)
    model = str(bundled_model_path()) if options.model == "bundled" else options.model
    work, count = flops(encoder, tokens), int(tokens.lengths.sum())
    limits = {
        p.value: limit(encoder, p, device)
        for p in (Precision.fp32, Precision.bf16)
        if p is Precision.fp32 or native_bf16(device)
    }
    table = Table(
        "way", "texts/s", "tokens/s", "texts/CPU s", "GFLOP", "limit", "least cosine",
        title=f"{len(texts):,} texts, {count:,} tokens, {torch.get_num_threads()} threads, {device}",
    )  # fmt: skip
    rows = []
    for rate in compare(ways_of(encoder, model, texts, device, options.only), options.rounds):
        most = limits["fp32" if rate.name == OTHER else rate.name] / 1e9
        reached = work / counted(rate.seconds, rate.cpu_seconds, device) / 1e9
        rows.append(
            {
                "way": rate.name, "seconds": rate.seconds, "cpu_seconds": rate.cpu_seconds,
                "texts_per_second": len(texts) / rate.seconds, "tokens_per_second": count / rate.seconds,
                "gflop_a_second": reached, "limit": most,
                "texts_per_cpu_second": len(texts) / rate.cpu_seconds, "least_cosine": rate.least_cosine,
            }
        )  # fmt: skip
        table.add_row(
            rate.name, f"{len(texts) / rate.seconds:,.0f}", f"{count / rate.seconds:,.0f}",
            f"{len(texts) / rate.cpu_seconds:,.0f}", f"{reached:,.0f}", f"{most:,.0f}",
            f"{rate.least_cosine:.5f}",
        )  # fmt: skip
    console.print(table)
    return {
        "texts": len(texts), "tokens": count, "threads": torch.get_num_threads(), "device": str(device),
        "rounds": options.rounds, "torch": torch.__version__, "machine": platform.machine(), "ways": rows,
    }  # fmt: skip


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--items", type=Path, help="Parquet table")
    source.add_argument("--generated", type=int, help="number of made-up short texts")
    parser.add_argument("--column", default="title")
    parser.add_argument("--count", type=int, default=None, help="distinct texts of the table, at most")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0 takes what PyTorch takes")
    parser.add_argument("--rounds", type=int, default=3)
    ways = (OTHER, "fp32", "bf16")
    parser.add_argument("--only", nargs="+", choices=ways, default=ways)
    parser.add_argument("--json", type=Path, default=None)
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and write the result."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    options = parse()
    result = measure(options, Console())
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
