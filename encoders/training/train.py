"""The train-encoder step: fine-tune the text encoder, embed the catalogue, train the towers."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from conf.encoders import Export, TuningMode
from conf.schema import PipelineConfig
from encoders.contexts import ContextSampler
from encoders.device import resolve_device
from encoders.factors.affinity import AFFINITY_FILE, Affinity
from encoders.text.catalogue_vectors import CatalogueVectors, read_vectors, text_ids
from encoders.text.int8_text_encoder import (
    INT8,
    Int8TextEncoder,
    check_export,
    export_int8,
    float_precision,
    native_int8,
)
from encoders.text.item_texts import ItemTexts
from encoders.text.precision import EMBEDDING, TRAINING, Precisions, choose_precision
from encoders.text.text_encoder import TextEncoder, load_text_encoder
from encoders.text.trainable import choose_trainable, merge_adapters, set_dropout
from encoders.training.curves import CURVES_FILE, Curve, read_curves, write_curves
from encoders.training.fit_towers import tower_shape, train_towers
from encoders.training.fitting import MONITORED, Fit, delete_checkpoints, fit
from encoders.training.progress import progress
from encoders.training.stage_one import VALIDATION_ITEMS, StageOne
from encoders.training.tracking import tracked_run
from encoders.training.warm import (
    LEARNED_UNTIL,
    TEXT_MODEL,
    WARM,
    beginning,
    learned_until,
    unseen_source,
    warm_inputs,
)
from encoders.training.warm_text import (
    affinity_settings,
    keeps_affinity,
    take_vectors,
    text_source,
    warm_text,
)
from features.data.dataset import Dataset, FloatArray, LongArray, load_dataset
from features.data.pipeline_step import Step, StepSpec, link_tree
from features.data.splits import Split, make_split
from features.text.item_text import TextTemplate, render_parts

ENCODER_FOLDER = "encoder"
TEXT_FOLDER = "text"
"""Outputs that do not depend on the towers' settings; linked into the encoder folder under the same names."""
TEXT_ENCODER = "text_encoder"
TEXT_VECTORS = "text_vectors.npy"
FROZEN_VECTORS = "frozen_vectors.npy"
"""Vectors of the encoder before any training, the baseline of fine-tuning. See `untouched_vectors`."""
TOWERS = "towers"
RANKER_TOWERS = "ranker_towers"
REPORT = "training.json"
EMBEDDING_PRECISION = "embedding_precision"
"""Key in the report: precision of the vectors, bf16, fp32 or int8."""
TEXT = StepSpec(
    "text encoder", TEXT_FOLDER,
    ("seed", "split", "text_encoder", "evaluation.target_events", "warm_start"), further=warm_inputs,
)  # fmt: skip
ENCODER = StepSpec(
    "train-encoder", ENCODER_FOLDER, ("user_encoder", "evaluation.exclude_seen"), after=TEXT,
    further=lambda config, _: config.warm.tower_epochs if config.warm_start else None,
)  # fmt: skip
MIN_EVENTS = 200
"""With fewer training events nothing is trained."""


def trainable(split: Split | None, dataset: Dataset) -> bool:
    """Return whether there are enough events to train on."""
    if split is None:
        return False
    known = split.tower_end - dataset.events.offsets[:-1]
    return bool(
        known.sum() >= MIN_EVENTS
        and (known >= 2).any()  # without a returning user no event follows another
        and len(split.ranker) > 0
        and len(split.valid) > 0
    )


def try_split(config: PipelineConfig, dataset: Dataset) -> Split | None:
    """Return the split, or None where there is no event to divide."""
    if len(dataset.events) < MIN_EVENTS:
        return None
    return make_split(dataset, config.split, config.evaluation.target_events)


def text_contexts(config: PipelineConfig, dataset: Dataset, end: LongArray) -> ContextSampler:
    """Return the training contexts of the text encoder, from histories up to `end`, [users]."""
    settings, texts = config.text_encoder, text_ids(dataset.catalogue.texts)
    return ContextSampler(dataset.events, end, dataset.kind_weights, texts, settings.window, settings.piece)


def _fine_tune(
    config: PipelineConfig,
    dataset: Dataset,
    split: Split,
    encoder: TextEncoder,
    vectors: CatalogueVectors,
    precision: Precisions,
    checkpoints: Path,
    console: Console,
) -> tuple[Fit, float]:
    """Run stage one; return the fit and the recall before it. New weights invalidate the vectors."""
    settings = config.text_encoder
    template = TextTemplate.from_info(dataset.info)
    parts = render_parts(dataset.catalogue.frame, template)
    texts = ItemTexts(encoder, vectors.tokens, parts, template.max_chars)
    sampler = text_contexts(config, dataset, split.tower_end)
    module = StageOne(encoder, settings, precision, sampler, texts, dataset.events, split.valid, config.seed)
    before = module.begin(vectors.of(module.pool))
    console.print(f"text encoder before fine-tuning: validation recall@10 {before:.4f} from text alone")
    if len(sampler) == 0:
        console.print("[yellow]no two items with different texts follow each other: no fine-tuning[/yellow]")
        return Fit(before, 0, [], Curve([], [], None)), before
    untouched = {name: t.clone() for name, t in encoder.state_dict().items()}
    set_dropout(encoder, settings.dropout)
    choose_trainable(encoder, settings)
    epochs = -(-settings.max_steps // settings.validate_every)
    result = fit(
        module, checkpoints, max_epochs=epochs, patience=settings.patience, monitor=MONITORED,
        device=resolve_device(config.device), console=console, devices=config.devices,
        tracked=tracked_run(config),
    )  # fmt: skip
    merge_adapters(encoder)
    encoder.to(resolve_device(config.device)).eval()
    if result.best < before:
        encoder.load_state_dict(untouched)
    else:
        vectors.invalidate()
    console.print(
        f"text encoder after fine-tuning: {result.best:.4f} (best of {len(result.history)} validations)"
    )
    return result, before


def train_text_encoder(
    config: PipelineConfig, dataset: Dataset, split: Split | None, learn: bool, console: Console
) -> Step:
    """Fine-tune the text encoder and embed the catalogue, unless that has been done, here or in `reuse`.

    Args:
        config: settings.
        dataset: the prepared data.
        split: its split; None where there is no event to divide.
        learn: False leaves the encoder unchanged and learns no affinity.
        console: where to report.

    Returns:
        The step: encoder, vectors, affinity, and `training.json`. Vectors of the untouched encoder are
        included where they were computed: for a catalogue that is validated as a whole, or an encoder not
        fine-tuned.

    """
    step = TEXT.step(config, dataset.facts)
    if step.finished(config.reuse, console):
        return step
    source = text_source(
        unseen_source(config, dataset, split) if learn else None, config.text_encoder, console
    )
    report: dict[str, object] = {
        TEXT_MODEL: config.text_encoder.model,
        WARM: [TEXT_ENCODER] if source else [],
    }
    if source is not None:
        config = warm_text(config, source)
    exported = config.text_encoder.export is Export.openvino
    if exported:
        check_export()
    step.reopen()
    torch.manual_seed(config.seed)
    encoder = load_text_encoder(config.text_encoder).to(resolve_device(config.device)).eval()
    checkpoints = Path(config.work_dir) / "checkpoints" / f"stage_one-{step.inputs}"
    tune = learn and config.text_encoder.mode is not TuningMode.frozen and config.text_encoder.max_steps > 0
    uses = (EMBEDDING, TRAINING) if tune else (EMBEDDING,)
    precision = choose_precision(config.text_encoder.precision, encoder, Path(config.work_dir), console, uses)
    report[EMBEDDING_PRECISION] = INT8 if exported else precision.embedding.value
    texts = CatalogueVectors(
        encoder, precision.embedding, dataset.catalogue.texts, partial(progress, console)
    )
    if source is not None:
        known = take_vectors(source, encoder, precision.embedding, texts, dataset.catalogue.texts)
        console.print(f"text vectors of {known:,} of {len(dataset.catalogue):,} items are taken over")
    elif not tune or len(dataset.catalogue) <= VALIDATION_ITEMS:
        texts.save(step.folder / FROZEN_VECTORS)
    if tune:
        assert split is not None
        fitted, before = _fine_tune(config, dataset, split, encoder, texts, precision, checkpoints, console)
        report["stage_one"] = {"before": before, "validation_recall": fitted.history}
        write_curves(step.folder, {TEXT_ENCODER: fitted.curve})
    encoder.save(step.folder / TEXT_ENCODER)
    if exported:
        if not native_int8():
            console.print(
                "text_encoder.export=openvino: eight bits are no faster than fp32 on this processor: it has "
                "no instructions for products of bytes (VNNI, AMX); they are on a server that has them"
            )
        export_int8(encoder, texts.tokens, step.folder / TEXT_ENCODER, config.seed)
        texts.use(Int8TextEncoder(encoder, step.folder / TEXT_ENCODER))
    texts.save(step.folder / TEXT_VECTORS)
    del texts  # from here on the vectors are mapped
    vectors = read_vectors(step.folder / TEXT_VECTORS)
    if learn:
        assert split is not None
        affinity = None
        if source is not None and keeps_affinity(config.warm):
            affinity = Affinity.load(source.encoder / AFFINITY_FILE)
        if affinity is None:
            contexts = text_contexts(config, dataset, split.tower_end)  # before the ranking head's queries
            affinity = Affinity.fit(
                vectors, contexts, affinity_settings(config, source is not None), config.seed,
                resolve_device(config.device),
            )  # fmt: skip
        if affinity is not None:
            affinity.save(step.folder / AFFINITY_FILE)
    (step.folder / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    step.complete()
    delete_checkpoints(checkpoints)
    return step


def untouched_vectors(
    config: PipelineConfig, dataset: Dataset, make: bool, console: Console
) -> FloatArray | None:
    """Return the vectors of the encoder before any training, [items, text dim].

    Args:
        config: settings.
        dataset: the prepared data.
        make: compute and store them if they are missing; otherwise None is returned then.
        console: where to report.

    """
    folder = Path(config.work_dir) / ENCODER_FOLDER
    file = folder / FROZEN_VECTORS
    if not file.is_file():
        if not make:
            return None
        report = json.loads((folder / REPORT).read_text())
        encoder = load_text_encoder(config.text_encoder).to(resolve_device(config.device)).eval()
        precision = float_precision(report[EMBEDDING_PRECISION])
        texts = CatalogueVectors(encoder, precision, dataset.catalogue.texts, partial(progress, console))
        unfinished = folder / f".{FROZEN_VECTORS}.{os.getpid()}"  # another evaluation may write its own
        try:
            texts.save(unfinished)
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)
    return read_vectors(file)


def train_encoder(config: PipelineConfig, console: Console, dataset: Dataset | None = None) -> Path:
    """Train and save text encoder, catalogue vectors and towers; a finished, unchanged step is skipped.

    Two pairs of towers are saved: the published ones, trained on all training events, and those that score
    the ranking head's training queries, trained for as many epochs on the events before those queries.

    Returns:
        The folder with the outputs.

    """
    dataset = dataset or load_dataset(Path(config.work_dir) / "dataset")
    step = ENCODER.step(config, dataset.facts)
    folder = step.folder
    if step.finished(config.reuse, console):
        return folder
    step.reopen()
    started = time.perf_counter()
    split = try_split(config, dataset)
    checkpoints = Path(config.work_dir) / "checkpoints"
    runs = {name: checkpoints / f"{name}-{step.inputs}" for name in ("stage_two", "ranker_towers")}
    learn = split is not None and trainable(split, dataset)
    if not learn:
        console.print(
            f"[yellow]{len(dataset.events)} events are too few to train on; "
            "the bundle will recommend by text and popularity[/yellow]"
        )
    text = train_text_encoder(config, dataset, split, learn, console)
    link_tree(text.folder, folder, REPORT, CURVES_FILE)
    curves = read_curves(text.folder)
    report: dict[str, Any] = json.loads((text.folder / REPORT).read_text())
    vectors = read_vectors(folder / TEXT_VECTORS)
    if learn:
        assert split is not None
        source = unseen_source(config, dataset, split) if report[WARM] else None
        shape = tower_shape(config, dataset, vectors)
        begin = {part: beginning(source, part, shape, dataset, console) for part in (TOWERS, RANKER_TOWERS)}
        own = config.user_encoder.epochs
        towers, fitted_towers = train_towers(
            config, dataset, vectors, split.train_end, split, True,
            own if begin[TOWERS] is None else config.warm.tower_epochs, runs["stage_two"], console,
            begin[TOWERS],
        )  # fmt: skip
        towers.save(folder / TOWERS)
        console.print(
            f"user tower: validation recall@10 {fitted_towers.best:.4f} after {fitted_towers.epochs} epochs"
        )
        # A bundle has no ranker towers: epochs that were enough for the others are not for these.
        alike = (begin[TOWERS] is None) == (begin[RANKER_TOWERS] is None)
        ranker_towers, _ = train_towers(
            config, dataset, vectors, split.tower_end, split, False,
            fitted_towers.epochs if alike else own, runs["ranker_towers"], console, begin[RANKER_TOWERS],
        )  # fmt: skip
        ranker_towers.save(folder / RANKER_TOWERS)
        report[WARM] = [*report[WARM], *(part for part, towers in begin.items() if towers is not None)]
        report[LEARNED_UNTIL] = learned_until(
            source,
            {TEXT_ENCODER: split.tower_time, TOWERS: split.train_time, RANKER_TOWERS: split.tower_time},
        )
        report["stage_two"] = {"validation_recall": fitted_towers.history, "epochs": fitted_towers.epochs}
        curves[TOWERS] = fitted_towers.curve
    report["trained"] = learn
    report["seconds"] = round(time.perf_counter() - started, 1)
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    write_curves(folder, curves)
    step.complete()
    for run in runs.values():
        delete_checkpoints(run)
    console.print(_summary(report))
    return folder


def _summary(report: dict[str, object]) -> Table:
    table = Table("part", "validation recall@10", title=f"train-encoder, {report['seconds']} s")
    for name, entry in report.items():
        if isinstance(entry, dict) and "validation_recall" in entry:
            history = entry["validation_recall"]
            table.add_row(name.replace("_", " "), " ".join(f"{v:.4f}" for v in history))
    return table
