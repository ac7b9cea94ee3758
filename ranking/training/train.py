"""The train-ranker step: candidates of out-of-time queries, features, the ranking head."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from conf.schema import PipelineConfig
from encoders.device import resolve_device
from encoders.factors.affinity import AFFINITY_FILE, Affinity
from encoders.factors.co_purchase import Factors
from encoders.text.catalogue_vectors import read_vectors
from encoders.towers.towers import Towers
from encoders.training.curves import Curve, write_curves
from encoders.training.fitting import Fit, delete_checkpoints, fit
from encoders.training.progress import progress
from encoders.training.tracking import tracked_run
from encoders.training.train import (  # fmt: skip
    ENCODER,
    ENCODER_FOLDER,
    RANKER_TOWERS,
    TEXT_VECTORS,
    TOWERS,
    trainable,
    try_split,
)
from encoders.training.warm import LEARNED_UNTIL, WARM, WarmSource, cold, learned_until, unseen_source
from features.candidates.features import FeatureLayout
from features.data import schema
from features.data.dataset import BoolArray, Dataset, LongArray, load_dataset
from features.data.pipeline_step import StepSpec
from features.data.splits import Queries, Split, exclude_seen
from features.data.statistics import item_statistics
from features.data.training_windows import Cut, RankerWindow, ranker_windows
from ranking.assembly import item_arrays
from ranking.recommender import Recommender
from ranking.retrieval.index_choice import build_index
from ranking.retrieval.source_indexes import SourceIndexes
from ranking.scoring.ranker import RANKER_FILE, Ranker
from ranking.sources import SOURCES
from ranking.training.examples import Examples, collect, ndcg_of_scores, stack
from ranking.training.ranker_module import RankerModule, calibrate, probability_quality, raw_logits
from ranking.training.text_arrays import TextArrays

RANKER_FOLDER = "ranker"
REPORT = "training.json"
RANKER = StepSpec(
    "train-ranker", RANKER_FOLDER, ("ranker", "candidates", "factors", "index"), after=ENCODER,
    further=lambda config, _: config.warm.ranker_epochs if config.warm_start else None,
)  # fmt: skip
VALID_QUERIES = 4000
CALIBRATION_QUERIES = 1000


def click_kinds(kinds: list[str]) -> BoolArray:
    """Return the mask of kinds weaker than a purchase, bool [kinds]."""
    return np.array([k in schema.CLICK_KINDS for k in kinds], dtype=np.bool_)


def build_recommender(
    config: PipelineConfig,
    dataset: Dataset,
    texts: TextArrays,
    towers: Towers | None,
    end: LongArray,
    now: int,
    ranker: Ranker | None = None,
) -> Recommender:
    """Return a Recommender with statistics of the events before `end` only.

    Towers, ranking head and indexes are on the configured device.
    """
    device = resolve_device(config.device)
    for model in (towers, ranker):
        if model is not None:
            model.to(device)
    near = config.candidates
    statistics = item_statistics(
        dataset, end, now, near.neighbours, near.window, near.max_events, config.seed
    )
    factors = Factors.fit(
        dataset.events, end, len(dataset.catalogue), dataset.kind_weights, config.factors, config.seed, device
    )
    if factors is not None:
        rows = np.flatnonzero(~factors.known).astype(np.int32)
        factors = factors.impute(texts.lenders(rows, factors.known), rows)
    arrays = item_arrays(
        statistics, texts.vectors, towers, config.candidates, texts.near, factors=factors, units=texts.units,
        affinity_units=texts.affinity_units,
    )  # fmt: skip
    index = build_index(arrays.item_vectors, config.index, device)
    indexes = SourceIndexes.build(index, arrays, new_items=texts.on_gpu, device=device)
    return Recommender(
        arrays, index, texts.vectors, config.candidates, click_kinds(dataset.kinds), towers, ranker, factors,
        texts.affinity, index if towers is None else texts.index, indexes, kinds=dataset.kinds,
    )  # fmt: skip


def held_out_users(queries: Queries, rng: np.random.Generator) -> Queries:
    """Return the queries of sampled users: a fifth of all, at most `CALIBRATION_QUERIES`."""
    users = np.unique(queries.user)
    lists = np.bincount(queries.user)[users]
    order = rng.permutation(len(users))
    drawn = order[np.cumsum(lists[order]) <= min(CALIBRATION_QUERIES, len(queries) // 5)]
    return queries.select(np.isin(queries.user, users[drawn]))


def drawn_windows(
    windows: Iterable[RankerWindow], most: int, rng: np.random.Generator
) -> tuple[list[RankerWindow], list[Queries], Queries]:
    """Draw the queries that the head learns from, holding those of one window at a time.

    Args:
        windows: at least one.
        most: queries of all windows together at most.
        rng: generator of the draws.

    Returns:
        The windows, each with at most `most` of its queries; the drawn ones of each; and the calibration
        queries, whose users are left out of training at every cut.
    """
    kept: list[RankerWindow] = []
    lots: list[LongArray] = []
    calibration: Queries | None = None
    for window in windows:
        queries = window.queries
        if calibration is None:
            calibration = held_out_users(queries, rng)
        others = np.flatnonzero(~np.isin(queries.user, calibration.user))
        # How many windows share the number is known after the last one.
        drawn = np.sort(lot := rng.permutation(len(others))[:most])
        lots.append(np.searchsorted(drawn, lot))
        kept.append(replace(window, queries=queries.select(others[drawn])))
    assert calibration is not None, "a split has a window"
    each = max(most // len(kept), 1)
    lists = [w.queries.select(np.sort(lot[:each])) for w, lot in zip(kept, lots, strict=True)]
    return kept, lists, calibration


def collect_examples(
    config: PipelineConfig, dataset: Dataset, split: Split, console: Console, until: Cut | None = None
) -> tuple[Examples, Examples, Examples | None]:
    """Return training, calibration and validation examples.

    Args:
        config: settings; the encoder step's outputs are in its work directory.
        dataset: the dataset.
        split: its split.
        console: shows progress.
        until: end of a refit, which trains on the validation events: no validation examples then.

    """
    encoder = Path(config.work_dir) / ENCODER_FOLDER
    text_vectors = read_vectors(encoder / TEXT_VECTORS)
    exclude = exclude_seen(dataset, split, config.evaluation.exclude_seen)
    rng = np.random.default_rng(config.seed)
    windows, lists, calibration = drawn_windows(
        ranker_windows(dataset, split, config.evaluation.target_events, config.ranker.cuts, until),
        config.ranker.max_queries,
        rng,
    )
    ranker_towers, towers = Towers.load(encoder / RANKER_TOWERS), Towers.load(encoder / TOWERS)
    texts = TextArrays.of(config, text_vectors, Affinity.load(encoder / AFFINITY_FILE))
    rows = config.ranker.max_rows
    limit = max(rows // max(sum(len(q) for q in lists), 1), 1) if rows else 0
    valid = split.valid.select(np.sort(rng.permutation(len(split.valid))[:VALID_QUERIES]))
    total = sum(map(len, lists)) + len(calibration) + (len(valid) if until is None else 0)
    train: list[Examples] = []
    with progress(console) as bar:
        task = bar.add_task("candidate features", total=total)

        def gather(
            recommender: Recommender, queries: Queries, limit: int, on_sale: BoolArray | None = None
        ) -> Examples:
            return collect(
                recommender, dataset.events, queries, exclude_seen=exclude, limit=limit, seed=config.seed,
                allowed=on_sale, advance=lambda n: bar.advance(task, n),
            )  # fmt: skip

        # One recommender at a time: each has vectors, factors and indexes of the whole catalogue.
        for number, (window, queries) in enumerate(zip(windows, lists, strict=True)):
            if number > 0 and len(queries) == 0:
                continue
            sale = window.on_sale(dataset.events, len(dataset.catalogue))
            scoring = towers if window.after_training else ranker_towers
            past = build_recommender(config, dataset, texts, scoring, window.end, window.time)
            if len(queries):
                train.append(gather(past, queries, limit, sale))
            if number == 0:
                held_out = gather(past, calibration, 0, sale)
            del past
        if until is not None:
            return stack(train), held_out, None
        present = build_recommender(config, dataset, texts, towers, split.train_end, split.train_time)
        return stack(train), held_out, gather(present, valid, 0)


def fit_ranker(
    config: PipelineConfig,
    train: Examples,
    calibration: Examples,
    valid: Examples | None,
    epochs: int,
    checkpoints: Path,
    console: Console,
    begin: Path | None = None,
) -> tuple[Ranker, Fit]:
    """Return a trained and calibrated ranking head; without validation examples, after exactly `epochs`.

    With the folder of an earlier one to begin with, that one is kept where no epoch improves it. Its scaling
    of the features comes along, as its layers were learned on top of it.
    """
    torch.manual_seed(config.seed)
    layout = FeatureLayout.of_width(SOURCES.names, train.features.shape[2])
    ranker = Ranker(layout.names, list(config.ranker.hidden), config.ranker.dropout)
    settings, before = config.ranker, -math.inf
    kept: Ranker | None = None
    if begin is None:
        real = np.flatnonzero(train.real)
        drawn = np.random.default_rng(config.seed).permutation(len(real))[:200_000]
        ranker.fit_scale(train.features[np.unravel_index(real[drawn], train.real.shape)])
    else:
        kept = Ranker.load(begin)
        ranker.load_state_dict(kept.state_dict())
        settings = replace(settings, learning_rate=settings.learning_rate * config.warm.learning_rate)
        if valid is not None:
            before = float(ndcg_of_scores(valid, raw_logits(kept, valid.features)[..., 0]).mean())
            console.print(f"ranking head as it began: validation ndcg@10 {before:.4f}")
    if kept is not None and epochs == 0:
        return kept, Fit(before, 0, [], Curve([], [], None))
    module = RankerModule(ranker, settings, train, valid, config.seed)
    fitted = fit(
        module, checkpoints, max_epochs=epochs, patience=config.ranker.patience,
        monitor=None if valid is None else "valid_ndcg", device=resolve_device(config.device),
        clip_norm=5.0, console=console, devices=config.devices, tracked=tracked_run(config),
    )  # fmt: skip
    trained = module.trained
    if kept is not None and fitted.best < before:
        trained, fitted = kept, replace(fitted, best=before, epochs=0)
    if len(calibration):
        calibrate(trained, calibration)
    return trained, fitted


def _head_to_begin_with(
    source: WarmSource | None, config: PipelineConfig, width: int, console: Console
) -> Path | None:
    """Return the folder of a head with the same features and layers; None without, with a line why."""
    if source is None:
        return None
    reason = "there is none"
    if (source.ranker / RANKER_FILE).is_file():
        old = Ranker.load(source.ranker)
        names = FeatureLayout.of_width(SOURCES.names, width).names
        if old.features == names and old.hidden == list(config.ranker.hidden) and old.conditional:
            return source.ranker
        other = sorted(set(old.features) ^ set(names))
        reason = f"its features differ ({', '.join(other[:5])})" if other else "its layers differ"
    cold("ranking head is", reason, console)
    return None


def train_ranker(config: PipelineConfig, console: Console, dataset: Dataset | None = None) -> Path:
    """Train and save the ranking head; a finished, unchanged step is skipped.

    Returns:
        The folder with the outputs; it holds no ranker where there was too little to learn from.

    """
    dataset = dataset or load_dataset(Path(config.work_dir) / "dataset")
    step = RANKER.step(config, dataset.facts)
    if step.finished(config.reuse, console):
        return step.folder
    ENCODER.step(config, dataset.facts).require()
    step.reopen()
    started = time.perf_counter()
    split = try_split(config, dataset)
    report: dict[str, object] = {"trained": False}
    if config.ranker.enabled and split is not None and trainable(split, dataset):
        train, calibration, valid = collect_examples(config, dataset, split, console)
        assert valid is not None
        checkpoints = Path(config.work_dir) / "checkpoints" / f"ranker-{step.inputs}"
        source = unseen_source(config, dataset, split)
        begin = _head_to_begin_with(source, config, train.features.shape[2], console)
        epochs = config.ranker.epochs if begin is None else config.warm.ranker_epochs
        ranker, fitted = fit_ranker(config, train, calibration, valid, epochs, checkpoints, console, begin)
        before = float(ndcg_of_scores(valid, valid.fused).mean())
        after = float(ndcg_of_scores(valid, raw_logits(ranker, valid.features)[..., 0]).mean())
        report = {
            "trained": True,
            "queries": len(train),
            "validation_ndcg@10": {"candidate_order": before, "ranked": after},
            "epochs": fitted.epochs,
            "history": fitted.history,
            "probabilities": probability_quality(ranker, valid),
            WARM: [] if begin is None else [RANKER_FOLDER],
            LEARNED_UNTIL: learned_until(
                None if begin is None else source, {RANKER_FOLDER: split.train_time}
            ),
        }
        ranker.save(step.folder)
        write_curves(step.folder, {RANKER_FOLDER: fitted.curve})
        delete_checkpoints(checkpoints)
    report["seconds"] = round(time.perf_counter() - started, 1)
    (step.folder / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    step.complete()
    _print(report, console)
    return step.folder


def _print(report: dict[str, object], console: Console) -> None:
    if not report["trained"]:
        console.print("train-ranker: no ranking head (too few events, or ranker.enabled=false)")
        return
    table = Table("what", "validation", title=f"train-ranker, {report['seconds']} s")
    ndcg = report["validation_ndcg@10"]
    assert isinstance(ndcg, dict)
    table.add_row("ndcg@10, candidate order", f"{ndcg['candidate_order']:.4f}")
    table.add_row("ndcg@10, ranking head", f"{ndcg['ranked']:.4f}")
    quality = report["probabilities"]
    assert isinstance(quality, dict)
    for name, values in quality.items():
        table.add_row(f"P({name}) AUC", f"{values['auc']:.4f}")
        table.add_row(f"P({name}) log loss", f"{values['log_loss']:.4f}")
        table.add_row(f"P({name}) calibration error", f"{values['calibration_error']:.5f}")
    console.print(table)
