"""The publish step: a bundle for serving from the training outputs."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from rich.console import Console

import conf
from conf.comparison import read_guards
from conf.errors import InputError
from conf.schema import PipelineConfig, Refit
from encoders.device import resolve_device
from encoders.text.catalogue_vectors import read_vectors
from encoders.training.train import (
    EMBEDDING_PRECISION,
    ENCODER,
    ENCODER_FOLDER,
    RANKER_TOWERS,
    REPORT,
    TEXT_ENCODER,
    TEXT_VECTORS,
    TOWERS,
    try_split,
)
from encoders.training.warm import LEARNED_UNTIL, TEXT_MODEL, WARM, warm_identity
from features.data.dataset import Dataset, load_dataset
from features.data.pipeline_step import StepSpec, plain
from features.data.splits import Split, exclude_seen
from features.data.training_windows import Cut, full_history_cut
from features.files.audit_log import record_command
from features.text.item_text import TextTemplate
from ranking.bundle.bundle import write_bundle
from ranking.bundle.collections import follow_current, load_staged
from ranking.bundle.store import Gate as Judge
from ranking.bundle.store import current_version, pointed_at, publish_version
from ranking.comparison.compare import Settings
from ranking.comparison.gate import Gate
from ranking.comparison.window import frozen_vectors, make_window
from ranking.overview.layout import can_lay_out
from ranking.overview.overview import Overview
from ranking.pipeline.histories import write_histories
from ranking.pipeline.refit import REFIT, chosen_models, cut_for_refit, published_models
from ranking.recommender import Recommender
from ranking.training.fit_novelty import fit_novelty
from ranking.training.text_arrays import TextArrays
from ranking.training.train import RANKER, RANKER_FOLDER, build_recommender, click_kinds

ARTIFACTS = "artifacts"
PUBLISH = StepSpec("publish", "publish", ("rerank", "publish.map", "privacy.hash_users"), after=REFIT)


def git_sha() -> str | None:
    """Return the commit of the code in use, or None outside a repository."""
    folder = Path(conf.__file__).parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - the user's own git
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def known_cut(config: PipelineConfig, dataset: Dataset, split: Split | None) -> Cut:
    """Return the end of a bundle's statistics: the test window, or the end of the data with a full refit."""
    if split is None or config.refit is Refit.everything:
        return full_history_cut(dataset)
    return Cut(split.state_end, split.state_time)


def _learned_until(
    config: PipelineConfig, dataset: Dataset, split: Split | None, reports: list[dict[str, Any]]
) -> dict[str, int]:
    """Return up to when each published model has learned, its ancestors included, in Unix seconds."""
    learned = {part: end for report in reports for part, end in report.get(LEARNED_UNTIL, {}).items()}
    learned.pop(RANKER_TOWERS, None)  # not published
    cut = cut_for_refit(config, dataset, split)
    if cut is not None:
        # A full refit has learned from the event at its end, too.
        end = cut.time + (config.refit is Refit.everything)
        learned |= {part: max(learned.get(part, end), end) for part in (TOWERS, RANKER_FOLDER)}
    return learned


def _current(store: Path) -> str | None:
    """Return the current version, or None if the store has none or lost it."""
    try:
        return current_version(store)
    except InputError:
        return None


def make_overview(
    config: PipelineConfig, dataset: Dataset, recommender: Recommender, console: Console
) -> Overview | None:
    """Return the overview that a bundle holds for the explorer; None without the library that makes it."""
    if not can_lay_out():
        console.print(
            "publish: no map of the items, as openTSNE is not installed; pip install 'shelfwise[map]', or "
            "publish.map=false", markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
        return None
    started = time.perf_counter()
    overview = Overview.of(
        dataset.catalogue.texts, recommender.text_vectors, recommender.arrays.text_near, config.seed,
        torch.get_num_threads(),
    )  # fmt: skip
    console.print(
        f"publish: map of {len(dataset.catalogue):,} items, {time.perf_counter() - started:.1f} s",
        highlight=False,
    )
    return overview


def _gate(config: PipelineConfig, dataset: Dataset, split: Split | None) -> Gate | None:
    """Return the gate of the settings, or None for none.

    Raises:
        InputError: there is nothing to measure on.
    """
    guards = read_guards(config.publish.gate, "publish.gate")
    if not guards:
        return None
    if split is None:
        raise InputError(
            f"publish.gate: {len(dataset.events):,} events are too few to measure on; set publish.gate=null"
        )
    vectors = frozen_vectors(Path(config.work_dir), len(dataset.catalogue))
    window = make_window(dataset, split, config.evaluation, config.seed, vectors=vectors)
    settings = Settings((), bootstrap=config.evaluation.bootstrap, seed=config.seed)
    return Gate(Path(config.work_dir) / ARTIFACTS, guards, window, resolve_device(config.device), settings)


def publish(
    config: PipelineConfig,
    console: Console,
    dataset: Dataset | None = None,
    store: Path | None = None,
    judge: Judge | None = None,
) -> str:
    """Publish a bundle with statistics up to the test window, or to the end of the data.

    With `publish.gate` it becomes current only if its guards hold against the current bundle.

    Args:
        config: of the run.
        console: where to report.
        dataset: that of the work directory, if it is at hand.
        store: the artifact store; None is that of the work directory.
        judge: decides whether the version becomes current, in place of `publish.gate`.

    Returns:
        The version's name.

    Raises:
        GuardError: a guard is broken; the current bundle stays.
        InputError: earlier steps are missing, or the guards cannot be judged.
        Exception: what `judge` raises.
    """
    work = Path(config.work_dir)
    store = work / ARTIFACTS if store is None else store
    dataset_folder = work / "dataset"
    dataset = dataset or load_dataset(dataset_folder)
    split = try_split(config, dataset)
    step = PUBLISH.step(config, dataset.facts)
    kept = _current(store) if step.is_current() else None
    if kept is not None:
        console.print(f"publish: nothing changed, keeping {kept}")
        if config.retrieval.uses_milvus:
            follow_current(config.retrieval, store, console)
        return kept
    gate = _gate(config, dataset, split) if judge is None else None
    ENCODER.step(config, dataset.facts).require()
    RANKER.step(config, dataset.facts).require()
    models = published_models(config, dataset, split)
    step.reopen()
    encoder = work / ENCODER_FOLDER
    text_vectors = read_vectors(encoder / TEXT_VECTORS)
    known = known_cut(config, dataset, split)
    reports = [json.loads((work / folder / REPORT).read_text()) for folder in (ENCODER_FOLDER, RANKER_FOLDER)]
    texts = TextArrays.of(config, text_vectors, models.affinity)
    recommender = build_recommender(
        config, dataset, texts, models.towers, known.end, known.time, models.ranker
    )
    exclude = config.evaluation.exclude_seen
    if split is not None:
        exclude = exclude_seen(dataset, split, exclude)
    exclude = True if exclude is None else exclude
    recommender.novelty = fit_novelty(recommender, dataset.events, known, exclude, config.seed)
    if recommender.novelty is None and split is not None and models.ranker is not None:
        # No item is cold now, but some were at the start of validation.
        cut, chosen = Cut(split.train_end, split.train_time), chosen_models(work)
        past = build_recommender(
            config, dataset, texts.mapped_by(chosen.affinity), chosen.towers, cut.end, cut.time, chosen.ranker
        )
        recommender.novelty = fit_novelty(past, dataset.events, cut, exclude, config.seed)
    info = dataset.info
    describe: dict[str, Any] = {
        "git_sha": git_sha(),
        "dataset_hash": info["content_hash"],
        "counts": {
            "items": len(dataset.catalogue),
            "events": int((known.end - dataset.events.offsets[:-1]).sum()),
        },
        "dims": {"text": text_vectors.shape[1], "item": recommender.arrays.item_vectors.shape[1]},
        "kinds": dataset.kinds,
        "click_kinds": click_kinds(dataset.kinds).tolist(),
        "exclude_seen": exclude,
        "data_end": known.time,
        "candidates": plain(config.candidates),
        "index": plain(config.index),
        "rerank": plain(config.rerank),
        "hash_users": config.privacy.hash_users,
        "max_tokens": config.text_encoder.max_tokens,
        "precision": reports[0].get(EMBEDDING_PRECISION, "fp32"),
        "template": {k: info[k] for k in ("text_fields", "text_fallback_fields", "max_text_chars")},
        "trained": {"towers": models.towers is not None, "ranker": models.ranker is not None},
        "refit": config.refit.value,
        TEXT_MODEL: reports[0].get(TEXT_MODEL),
        LEARNED_UNTIL: _learned_until(config, dataset, split, reports),
        "warm_start": {
            "source": warm_identity(config, dataset.facts),
            "parts": [part for report in reports for part in report.get(WARM, [])],
        },
    }
    overview = make_overview(config, dataset, recommender, console) if config.publish.map else None
    config_text = OmegaConf.to_yaml(OmegaConf.create(plain(config)))

    def write(folder: Path) -> None:
        template = TextTemplate.from_info(info)
        write_bundle(folder, recommender, dataset.catalogue, template, encoder / TEXT_ENCODER, config_text)
        if overview is not None:
            overview.save(folder)

    def accept(staged: Path, manifest: dict[str, Any], current: str | None) -> None:
        if judge is not None:
            judge(staged, manifest, current)
        elif gate is not None:
            gate.check(staged, manifest, current, console)
        if config.retrieval.uses_milvus:
            load_staged(config.retrieval, staged, manifest, console)
        write_histories(store, dataset_folder, dataset.events)

    former = pointed_at(store)
    version = publish_version(store, write, describe, accept)
    record_command(store, "publish", version=version, former=former)
    if config.retrieval.uses_milvus:
        follow_current(config.retrieval, store, console)
    step.complete()
    console.print(f"published [bold]{version}[/bold] to {store} ({len(dataset.catalogue):,} items)")
    return version
