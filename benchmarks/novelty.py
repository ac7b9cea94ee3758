"""Cost and benefit of novelty: lists of a finished run under several budgets for cold items.

    python -m benchmarks.novelty data=completejourney experiment=completejourney work_dir=work/completejourney

scores the run's validation queries once, and promotes cold items by the offset of `rerank.novelty` at each
budget: their share of the first ten ranks, their hits, recall@10 of cold targets, and the loss over the whole
catalogue.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.table import Table

from conf.composition.compose import compose_command
from conf.errors import InputError
from conf.schema import PipelineConfig
from encoders.text.catalogue_vectors import read_vectors
from encoders.training.train import ENCODER_FOLDER, TEXT_VECTORS, try_split
from features.data.dataset import BoolArray, FloatArray, load_dataset
from features.data.splits import exclude_seen
from features.data.training_windows import Cut
from ranking.pipeline.refit import chosen_models
from ranking.scoring.novelty import CUTOFF, Novelty
from ranking.training.examples import Examples, collect
from ranking.training.fit_novelty import fit_novelty
from ranking.training.ranker_module import raw_logits
from ranking.training.text_arrays import TextArrays
from ranking.training.train import build_recommender

BUDGETS: Final = (0.0, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05)
FILE: Final = "novelty.json"


@dataclass(frozen=True)
class Measured:
    """Lists under one budget."""

    budget: float
    offset: float
    share: float
    """Share of the first ten ranks taken by cold items."""
    lists: float
    """Share of the lists with one among the first ten."""
    hits: int
    """Hits among these."""
    new_recall: float
    """recall@10 of cold targets, in the whole catalogue."""
    recall: float
    """recall@10 of all targets."""
    ndcg: float


def measure(
    examples: Examples,
    scores: FloatArray,
    unknown: BoolArray,
    new_targets: np.ndarray,
    novelty: Novelty,
    budget: float,
) -> Measured:
    """Return the metrics of lists whose cold items are promoted within a budget.

    Args:
        examples: complete candidate lists of the queries.
        scores: of the ranking head, [queries, candidates].
        unknown: mask of cold candidates, [queries, candidates].
        new_targets: [queries] number of cold targets.
        novelty: offsets by budget.
        budget: the budget to measure.

    """
    offset = novelty.offset(budget)
    moved = np.where(examples.real, np.where(unknown, scores + offset, scores), -np.inf)
    first = np.argsort(-moved, axis=1, kind="stable")[:, :CUTOFF]
    shown = np.take_along_axis(examples.real, first, axis=1)
    right = np.take_along_axis(examples.chosen, first, axis=1) & shown
    new = np.take_along_axis(unknown, first, axis=1) & shown
    gains = 1.0 / np.log2(np.arange(2, CUTOFF + 2))
    ideal = np.cumsum(gains)[np.minimum(examples.targets, CUTOFF) - 1]
    has_new = new_targets > 0
    return Measured(
        budget=budget,
        offset=offset,
        share=float(new.mean()),
        lists=float(new.any(axis=1).mean()),
        hits=int((right & new).sum()),
        new_recall=float(((right & new).sum(axis=1)[has_new] / new_targets[has_new]).mean())
        if has_new.any()
        else 0.0,
        recall=float((right.sum(axis=1) / examples.targets).mean()),
        ndcg=float(((right * gains[: right.shape[1]]).sum(axis=1) / ideal).mean()),
    )


def curve(config: PipelineConfig) -> list[Measured]:
    """Measure a finished run's validation lists under every budget.

    Raises:
        InputError: there is nothing to measure.
    """
    work = Path(config.work_dir)
    dataset = load_dataset(work / "dataset")
    split = try_split(config, dataset)
    models = chosen_models(work)
    if split is None or models.ranker is None:
        raise InputError(f"{work}: no ranking head here; run `shelfwise run` with these settings first")
    exclude = exclude_seen(dataset, split, config.evaluation.exclude_seen)
    texts = TextArrays.of(config, read_vectors(work / ENCODER_FOLDER / TEXT_VECTORS), models.affinity)
    recommender = build_recommender(
        config, dataset, texts, models.towers, split.train_end, split.train_time, models.ranker
    )
    cut = Cut(split.train_end, split.train_time)
    novelty = fit_novelty(recommender, dataset.events, cut, exclude, config.seed)
    if novelty is None:
        raise InputError(f"{work}: every item has an event before validation, so none is new")
    queries = split.valid
    examples = collect(recommender, dataset.events, queries, exclude_seen=exclude, limit=0, seed=config.seed)
    fresh = recommender.arrays.statistics.count == 0
    owner = np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets))
    new_targets = np.bincount(owner[fresh[queries.targets]], minlength=len(queries))
    scores = raw_logits(models.ranker, examples.features)[..., 0]
    unknown = examples.features[..., models.ranker.features.index("log_count")] == 0
    unknown &= examples.real
    return [measure(examples, scores, unknown, new_targets, novelty, budget) for budget in BUDGETS]


def main() -> None:
    """Print the curve and write it beside the evaluation."""
    console = Console()
    try:
        config = compose_command("train-ranker", sys.argv[1:])
        measured = curve(config)
    except InputError as error:
        console.print(f"[bold red]benchmarks.novelty:[/bold red] {error}", soft_wrap=True)
        sys.exit(2)
    table = Table("budget", "added", "share of places", "lists", "hits", "R@10, new", "R@10", "ndcg@10")
    for row in measured:
        table.add_row(
            f"{row.budget:g}", f"{row.offset:.3f}", f"{row.share:.4f}", f"{row.lists:.4f}", f"{row.hits:,}",
            f"{row.new_recall:.4f}", f"{row.recall:.4f}", f"{row.ndcg:.4f}",
        )  # fmt: skip
    console.print(table)
    path = Path(config.work_dir) / FILE
    path.write_text(json.dumps([vars(row) for row in measured], indent=2) + "\n")
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
