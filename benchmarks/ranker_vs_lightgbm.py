r"""The ranking head beside LightGBM LambdaRank on the same candidates and features.

    python -m benchmarks.ranker_vs_lightgbm data=completejourney \
        experiment=completejourney work_dir=work/completejourney

takes a finished run, collects the run's training and validation examples again, trains LightGBM on the former
and compares ndcg@10 on the latter. Needs the extra `baselines`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import lightgbm
import numpy as np
from rich.console import Console
from rich.table import Table

from conf.composition.compose import compose_command
from conf.errors import InputError
from conf.schema import PipelineConfig
from encoders.training.train import try_split
from features.data.dataset import load_dataset
from ranking.evaluation.significance import paired_test
from ranking.scoring.ranker import Ranker
from ranking.training.examples import Examples, ndcg_of_scores
from ranking.training.ranker_module import raw_logits
from ranking.training.train import RANKER_FOLDER, collect_examples

ROUNDS = 500
PATIENCE = 30


def _flat(examples: Examples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, labels and group sizes of the real candidates."""
    return examples.features[examples.real], examples.chosen[examples.real], examples.real.sum(axis=1)


def train_lambdarank(train: Examples, valid: Examples, seed: int) -> lightgbm.Booster:
    """Train LambdaRank (Burges 2010) with early stopping on validation, as the ranking head has."""
    useful = train.select(np.flatnonzero(train.chosen.any(axis=1)))
    features, labels, groups = _flat(useful)
    training = lightgbm.Dataset(features, labels, group=groups)
    valid_features, valid_labels, valid_groups = _flat(valid)
    checking = lightgbm.Dataset(valid_features, valid_labels, group=valid_groups, reference=training)
    settings = {
        "objective": "lambdarank", "metric": "ndcg", "eval_at": [10], "learning_rate": 0.05, "num_leaves": 31,
        "min_data_in_leaf": 100, "feature_fraction": 0.8, "bagging_fraction": 0.8, "bagging_freq": 1,
        "lambdarank_truncation_level": 30, "seed": seed, "verbose": -1, "deterministic": True,
    }  # fmt: skip
    return lightgbm.train(
        settings,
        training,
        ROUNDS,
        valid_sets=[checking],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )


def main() -> None:
    """Compare and write `<work_dir>/benchmarks/ranker_vs_lightgbm.json`."""
    console = Console()
    config: PipelineConfig = compose_command("train-ranker", sys.argv[1:])
    work = Path(config.work_dir)
    dataset = load_dataset(work / "dataset")
    split = try_split(config, dataset)
    if split is None:
        raise InputError(f"{work}: too few events to compare rankers on")
    train, _, valid = collect_examples(config, dataset, split, console)
    assert valid is not None
    started = time.perf_counter()
    booster = train_lambdarank(train, valid, config.seed)
    seconds = time.perf_counter() - started
    scores = np.zeros(valid.real.shape, dtype=np.float32)
    scores[valid.real] = booster.predict(valid.features[valid.real])
    head = Ranker.load(work / RANKER_FOLDER)
    ours = ndcg_of_scores(valid, raw_logits(head, valid.features)[..., 0])
    theirs = ndcg_of_scores(valid, scores)
    before = ndcg_of_scores(valid, valid.fused)
    test = paired_test(ours[:, None].astype(np.float64), theirs[:, None].astype(np.float64), seed=config.seed)
    p_value = float(test.p_value[0])
    table = Table(
        "order", "validation ndcg@10", title=f"{len(valid):,} queries, p = {p_value:.2g} (paired t)"
    )
    result = {
        "candidate_order": float(before.mean()),
        "ranking_head": float(ours.mean()),
        "lightgbm_lambdarank": float(theirs.mean()),
    }
    for name, value in result.items():
        table.add_row(name.replace("_", " "), f"{value:.4f}")
    console.print(table)
    output = work / "benchmarks" / "ranker_vs_lightgbm.json"
    output.parent.mkdir(exist_ok=True)
    report = {**result, "p_value": p_value, "queries": len(valid), "lightgbm_seconds": round(seconds, 1)}
    output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
