"""What eight bits cost a text encoder in recall: lists by text vectors alone, the same queries, paired.

    shelfwise run data=online_retail split=global_time data.events=FILE experiment=demo work_dir=work/demo
    python -m benchmarks.int8_recall split=global_time work_dir=work/demo

Takes the encoder of a finished run, embeds the catalogue in fp32, bf16 and int8 on one thread, and ranks the
catalogue by each, so that no other part compensates. Overrides are those of `shelfwise evaluate`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from conf.composition.compose import compose_command
from conf.encoders import Precision, TextEncoderConfig
from conf.errors import InputError
from conf.schema import PipelineConfig
from encoders.text.compiled_text_encoder import CompiledTextEncoder, FrozenTextEncoder
from encoders.text.int8_text_encoder import INT8, Int8TextEncoder, export_int8
from encoders.text.text_encoder import TextEncoder, load_text_encoder
from encoders.text.tokens import TokenArray
from encoders.training.train import ENCODER_FOLDER, TEXT_ENCODER, try_split
from features.data.dataset import FloatArray, load_dataset
from features.data.splits import exclude_seen
from ranking.baselines.items import FrozenText
from ranking.evaluation.evaluation import sample_queries
from ranking.evaluation.stage_recall import HEADLINE, ranked_values

QUERIES: Final = 6_000
RESAMPLES: Final = 1_000
METRICS: Final = (f"recall@{HEADLINE}", f"ndcg@{HEADLINE}")


def interval(differences: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean of paired differences, [queries]."""
    rng = np.random.default_rng(seed)
    size = len(differences)
    means = [differences[rng.integers(size, size=size)].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """A metric of lists by vectors of a precision, beside those in fp32."""

    window: str
    queries: int
    metric: str
    precision: str
    exact: float
    """Mean in fp32."""
    here: float
    """Mean in the precision."""
    low: float
    high: float
    """95 % interval of the mean difference."""

    @property
    def difference(self) -> float:
        """The mean difference; negative where the precision costs something."""
        return self.here - self.exact


def vectors_by_precision(
    encoder: TextEncoder, texts: list[str], seed: int, console: Console
) -> dict[str, FloatArray]:
    """Return unit vectors of texts [items, dim] in fp32, bf16 and int8."""
    tokens = TokenArray.tokenized(encoder.tokenizer, texts, encoder.max_tokens)
    vectors: dict[str, FloatArray] = {}
    with tempfile.TemporaryDirectory() as folder:
        export_int8(encoder, tokens, Path(folder), seed)
        forms: dict[str, FrozenTextEncoder] = {
            "fp32": CompiledTextEncoder(encoder, Precision.fp32),
            "bf16": CompiledTextEncoder(encoder, Precision.bf16),
            INT8: Int8TextEncoder(encoder, Path(folder)),
        }
        for name, form in forms.items():
            began = time.process_time()
            vectors[name] = form.embed_tokens(tokens)
            rate = len(texts) / (time.process_time() - began)
            cosine = float((vectors[name] * vectors["fp32"]).sum(1).min())
            console.print(f"{name}: {rate:,.0f} texts a CPU second, least cosine {cosine:.4f}")
    return vectors


def compare(
    config: PipelineConfig, encoder: TextEncoder, most: int, console: Console
) -> Iterator[Difference]:
    """Embed a dataset's catalogue, rank it by each precision, and yield what differs.

    Args:
        config: of `evaluate`, with a prepared dataset.
        encoder: in fp32, not modified.
        most: queries of a window at most; 0 is all.
        console: gets the speed of each precision.

    Raises:
        InputError: the dataset has too few events to divide.

    """
    work = Path(config.work_dir)
    dataset = load_dataset(work / "dataset")
    split = try_split(config, dataset)
    if split is None:
        raise InputError(f"{work}: too few events to divide")
    texts = [encoder.prompts.passage + text for text in dataset.catalogue.texts]
    vectors = vectors_by_precision(encoder, texts, config.seed, console)
    seen = exclude_seen(dataset, split, config.evaluation.exclude_seen)
    for window in ("valid", "test"):
        queries = sample_queries(getattr(split, window), most, config.seed)
        values = {}
        for name, made in vectors.items():
            nearest = FrozenText(made, kind_weights=dataset.kind_weights)
            nearest.fit(dataset.events, split.train_end, split.train_time, len(dataset.catalogue))
            lists = nearest.recommend(dataset.events, queries, HEADLINE, seen)[0]
            values[name] = ranked_values(lists, queries)
        for metric in METRICS:
            exact = np.asarray(values["fp32"][metric])
            for name in ("bf16", INT8):
                here = np.asarray(values[name][metric])
                low, high = interval(here - exact)
                yield Difference(
                    window, len(queries), metric, name, float(exact.mean()), float(here.mean()), low, high
                )


def main(overrides: list[str], console: Console) -> None:
    """Compare the encoder of a finished run, and print the table.

    Raises:
        InputError: the run has too few events to divide.

    """
    torch.set_num_threads(1)
    config = compose_command("evaluate", overrides)
    model = str(Path(config.work_dir) / ENCODER_FOLDER / TEXT_ENCODER)
    encoder = load_text_encoder(TextEncoderConfig(model=model, max_tokens=config.text_encoder.max_tokens))
    table = Table("window", "queries", "metric", "precision", "fp32", "here", "difference", "95 %")
    for found in compare(config, encoder.eval(), QUERIES, console):
        table.add_row(
            found.window, f"{found.queries:,}", found.metric, found.precision, f"{found.exact:.4f}",
            f"{found.here:.4f}", f"{found.difference:+.4f}", f"{found.low:+.4f} to {found.high:+.4f}",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main(sys.argv[1:], Console())
