"""The train-encoder step: fine-tune the text encoder, embed the catalogue, train the towers."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from conf.encoders import TuningMode
from conf.schema import PipelineConfig
from encoders.affinity import AFFINITY_FILE, Affinity
from encoders.contexts import ContextSampler
from encoders.device import resolve_device
from encoders.embedding import embed_texts
from encoders.fitting import MONITORED, Fit, fit, forget
from encoders.item_texts import ItemTexts
from encoders.sequences import passes_per_epoch
from encoders.stage_one import StageOne
from encoders.stage_two import StageTwo
from encoders.text_encoder import TextEncoder, load_text_encoder
from encoders.towers import Towers
from encoders.tuning import choose_trainable, merge_adapters
from features.dataset import BoolArray, Dataset, FloatArray, IntArray, LongArray, load_dataset
from features.splits import Split, exclude_seen, make_split, ragged_ranges
from features.stages import Stage, fingerprint, link_tree
from features.text import TextTemplate, render_parts

ENCODER_FOLDER = "encoder"
TEXT_FOLDER = "text"
"""What no setting of the towers changes; the encoder folder holds the same files under the same names."""
TEXT_ENCODER = "text_encoder"
TEXT_VECTORS = "text_vectors.npy"
FROZEN_VECTORS = "frozen_vectors.npy"
"""Vectors of the encoder before any training: what fine-tuning is compared with."""
TOWERS = "towers"
RANKER_TOWERS = "ranker_towers"
REPORT = "training.json"
MIN_EVENTS = 200
"""Fewer training events than this teach nothing: the text encoder stays as it is, no tower is trained."""


@dataclass(frozen=True)
class Progressing:
    """Where a step reports."""

    console: Console

    def bar(self) -> Progress:
        """Return a progress bar in the house style."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )


def seen_items(dataset: Dataset, end: LongArray) -> BoolArray:
    """Tell which items the training prefixes mention, bool [items]."""
    events = dataset.events
    seen = np.zeros(len(dataset.catalogue), dtype=np.bool_)
    seen[events.item[ragged_ranges(events.offsets[:-1], end - events.offsets[:-1])]] = True
    return seen


def trainable(split: Split | None, dataset: Dataset) -> bool:
    """Tell whether there are enough events to train on."""
    if split is None:
        return False
    known = split.tower_end - dataset.events.offsets[:-1]
    return bool(
        known.sum() >= MIN_EVENTS
        and (known >= 2).any()  # nobody who came back: nothing follows anything
        and len(split.ranker) > 0
        and len(split.valid) > 0
    )


def text_ids(texts: list[str]) -> IntArray:
    """Number distinct texts, [items]."""
    return np.unique(np.array(texts, dtype=object), return_inverse=True)[1].astype(np.int32)


def encoder_stage(config: PipelineConfig, dataset: Dataset) -> Stage:
    """Return the stage whose folder holds this step's outputs."""
    inputs = fingerprint(
        dataset.info["content_hash"], dataset.info["event_weights"], dataset.info["text_fields"], config.seed,
        config.split, config.text_encoder, config.user_encoder,
        config.evaluation.exclude_seen, config.evaluation.target_events,
    )  # fmt: skip
    return Stage(Path(config.work_dir) / ENCODER_FOLDER, inputs)


def text_stage(config: PipelineConfig, dataset: Dataset) -> Stage:
    """Return the stage of the text encoder and its vectors, which runs with other towers may share."""
    inputs = fingerprint(
        dataset.info["content_hash"], dataset.info["event_weights"], dataset.info["text_fields"], config.seed,
        config.split, config.text_encoder, config.evaluation.target_events,
    )  # fmt: skip
    return Stage(Path(config.work_dir) / TEXT_FOLDER, inputs)


def try_split(config: PipelineConfig, dataset: Dataset) -> Split | None:
    """Return the split, or None where there is no event to divide."""
    if len(dataset.events) < MIN_EVENTS:
        return None
    return make_split(dataset, config.split, config.evaluation.target_events)


def text_contexts(config: PipelineConfig, dataset: Dataset, end: LongArray) -> ContextSampler:
    """Return what texts are learnt from: histories up to `end`, [users]."""
    settings, texts = config.text_encoder, text_ids(dataset.catalogue.texts)
    return ContextSampler(dataset.events, end, dataset.kind_weights, texts, settings.window, settings.piece)


def _fine_tune(
    config: PipelineConfig,
    dataset: Dataset,
    split: Split,
    encoder: TextEncoder,
    frozen: FloatArray,
    checkpoints: Path,
    console: Console,
) -> tuple[Fit, float]:
    """Run stage one; return the fit and the recall before it, measured on the vectors `frozen`."""
    settings = config.text_encoder
    template = TextTemplate.from_info(dataset.info)
    parts = render_parts(dataset.catalogue.frame, template)
    texts = ItemTexts(encoder, dataset.catalogue.texts, parts, template.max_chars)
    sampler = text_contexts(config, dataset, split.tower_end)
    module = StageOne(encoder, settings, sampler, texts, frozen, dataset.events, split.valid, config.seed)
    before = module.text_recall(frozen[module.pool])
    console.print(f"text encoder before fine-tuning: validation recall@10 {before:.4f} from text alone")
    if len(sampler) == 0:
        console.print("[yellow]no two items with different texts follow each other: no fine-tuning[/yellow]")
        return Fit(before, 0, []), before
    untouched = {name: t.clone() for name, t in encoder.state_dict().items()}
    choose_trainable(encoder, settings)
    epochs = -(-settings.max_steps // settings.validate_every)
    result = fit(
        module, checkpoints, max_epochs=epochs, patience=settings.patience, monitor=MONITORED,
        device=resolve_device(config.device), console=console, devices=config.devices,
    )  # fmt: skip
    merge_adapters(encoder)
    if result.best < before:
        encoder.load_state_dict(untouched)
    console.print(
        f"text encoder after fine-tuning: {result.best:.4f} (best of {len(result.history)} validations)"
    )
    return result, before


def train_towers(
    config: PipelineConfig,
    dataset: Dataset,
    text_vectors: FloatArray,
    end: LongArray,
    split: Split,
    validate: bool,
    epochs: int,
    checkpoints: Path,
    console: Console,
) -> tuple[Towers, Fit]:
    """Run stage two on the prefixes `end`; without validation, for exactly `epochs`."""
    settings = config.user_encoder
    exclude = exclude_seen(dataset, split, config.evaluation.exclude_seen)
    torch.manual_seed(config.seed)
    towers = Towers.from_config(settings, text_vectors.shape[1], len(dataset.catalogue), len(dataset.kinds))
    towers.item_tower.fit_text(text_vectors, seen_items(dataset, end))
    module = StageTwo(
        towers, settings, dataset.events, end, text_vectors, dataset.kind_weights,
        split.valid if validate else None, exclude, config.seed,
        ties_unordered=not dataset.info["has_order"],
        passes=passes_per_epoch(
            dataset.events, split.train_end, settings.max_length, settings.min_windows_per_epoch
        ),
    )  # fmt: skip
    result = fit(
        module,
        checkpoints,
        max_epochs=epochs,
        patience=settings.patience,
        monitor=MONITORED if validate else None,
        device=resolve_device(config.device),
        clip_norm=settings.clip_norm,
        console=console,
        devices=config.devices,
    )
    return module.trained, result


def _embed_catalogue(
    config: PipelineConfig, dataset: Dataset, encoder: TextEncoder, console: Console
) -> FloatArray:
    """Encode every item's text, [items, text dim], with a progress bar."""
    texts = dataset.catalogue.texts
    with Progressing(console).bar() as bar:
        task = bar.add_task("embedding the catalogue", total=len(set(texts)))
        return embed_texts(
            encoder, texts, encoder.prompts.passage, config.text_encoder.precision,
            advance=lambda n: bar.advance(task, n),
        )  # fmt: skip


def train_text_encoder(
    config: PipelineConfig, dataset: Dataset, split: Split | None, learn: bool, console: Console
) -> Stage:
    """Fine-tune the text encoder and embed the catalogue, unless that is done, here or in `reuse`.

    Args:
        config: settings.
        dataset: the prepared data.
        split: its split; None where there is no event to divide.
        learn: False leaves the encoder as it comes, and no affinity is learnt.
        console: where to report.

    Returns:
        The stage: encoder, vectors before and after, affinity, and `training.json`.

    """
    stage = text_stage(config, dataset)
    if stage.finished("text encoder", config.reuse, console):
        return stage
    stage.reopen()
    torch.manual_seed(config.seed)
    encoder = load_text_encoder(config.text_encoder)
    checkpoints = Path(config.work_dir) / "checkpoints" / f"stage_one-{stage.inputs}"
    report: dict[str, object] = {}
    tune = learn and config.text_encoder.mode is not TuningMode.frozen and config.text_encoder.max_steps > 0
    encoder.eval()
    vectors = _embed_catalogue(config, dataset, encoder, console)
    np.save(stage.folder / FROZEN_VECTORS, vectors)
    if tune:
        assert split is not None
        fitted, before = _fine_tune(config, dataset, split, encoder, vectors, checkpoints, console)
        report["stage_one"] = {"before": before, "validation_recall": fitted.history}
        encoder.eval()
        vectors = _embed_catalogue(config, dataset, encoder, console)
    encoder.save(stage.folder / TEXT_ENCODER)
    np.save(stage.folder / TEXT_VECTORS, vectors)
    if learn:
        assert split is not None
        contexts = text_contexts(config, dataset, split.tower_end)  # before the ranking head's queries
        affinity = Affinity.fit(
            vectors, contexts, config.text_encoder, config.seed, resolve_device(config.device)
        )
        if affinity is not None:
            affinity.save(stage.folder / AFFINITY_FILE)
    (stage.folder / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    stage.complete()
    forget(checkpoints)
    return stage


def train_encoder(config: PipelineConfig, console: Console) -> Path:
    """Train and save text encoder, catalogue vectors and towers; a finished, unchanged step is skipped.

    Two pairs of towers are saved: the published ones, trained on all training events, and those that score
    the ranking head's training queries, trained for as many epochs on the events before those queries.

    Returns:
        The folder with the outputs.

    """
    dataset = load_dataset(Path(config.work_dir) / "dataset")
    stage = encoder_stage(config, dataset)
    folder = stage.folder
    if stage.finished("train-encoder", config.reuse, console):
        return folder
    stage.reopen()
    started = time.perf_counter()
    split = try_split(config, dataset)
    checkpoints = Path(config.work_dir) / "checkpoints"
    runs = {name: checkpoints / f"{name}-{stage.inputs}" for name in ("stage_two", "ranker_towers")}
    learn = split is not None and trainable(split, dataset)
    if not learn:
        console.print(
            f"[yellow]{len(dataset.events)} events are too few to train on; "
            "the bundle will recommend by text and popularity[/yellow]"
        )
    text = train_text_encoder(config, dataset, split, learn, console)
    link_tree(text.folder, folder, REPORT)
    report: dict[str, object] = json.loads((text.folder / REPORT).read_text())
    vectors = np.load(folder / TEXT_VECTORS)
    if learn:
        assert split is not None
        towers, fitted_towers = train_towers(
            config, dataset, vectors, split.train_end, split, True,
            config.user_encoder.epochs, runs["stage_two"], console,
        )  # fmt: skip
        towers.save(folder / TOWERS)
        console.print(
            f"user tower: validation recall@10 {fitted_towers.best:.4f} after {fitted_towers.epochs} epochs"
        )
        ranker_towers, _ = train_towers(
            config, dataset, vectors, split.tower_end, split, False,
            fitted_towers.epochs, runs["ranker_towers"], console,
        )  # fmt: skip
        ranker_towers.save(folder / RANKER_TOWERS)
        report["stage_two"] = {"validation_recall": fitted_towers.history, "epochs": fitted_towers.epochs}
    report["trained"] = learn
    report["seconds"] = round(time.perf_counter() - started, 1)
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    stage.complete()
    for run in runs.values():
        forget(run)
    console.print(_summary(report))
    return folder


def _summary(report: dict[str, object]) -> Table:
    table = Table("part", "validation recall@10", title=f"train-encoder, {report['seconds']} s")
    for name, entry in report.items():
        if isinstance(entry, dict):
            history = entry["validation_recall"]
            table.add_row(name.replace("_", " "), " ".join(f"{v:.4f}" for v in history))
    return table
