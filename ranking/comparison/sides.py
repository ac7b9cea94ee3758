"""The window that two operands share, and the lists of each on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.errors import InputError
from conf.schema import EvaluationConfig, SplitConfig
from features.data.dataset import load_dataset
from features.data.splits import make_split
from ranking.bundle.bundle import CONFIG, load_bundle
from ranking.bundle.store import VERSIONS
from ranking.comparison.bundles import learned_from, measure_bundle
from ranking.comparison.measured import Measured, measure
from ranking.comparison.operand import DATASET, EVALUATION, PREDICTIONS_FILE, Kind, Operand
from ranking.comparison.predictions import read_predictions
from ranking.comparison.window import (
    Window,
    frozen_vectors,
    make_window,
    read_result,
    window_of_result,
)
from ranking.evaluation.evaluation import sample_queries


class LeakError(InputError):
    """A system has learned from the queries that it would be measured on."""


def run_settings(folder: Path) -> tuple[SplitConfig, EvaluationConfig, int] | None:
    """Return split, evaluation and seed from the config.yaml of a version; None if it has none."""
    try:
        config = OmegaConf.load(folder / CONFIG)
        assert isinstance(config, DictConfig)
        split = OmegaConf.merge(OmegaConf.structured(SplitConfig), config["split"])
        measured = OmegaConf.merge(OmegaConf.structured(EvaluationConfig), config["evaluation"])
        seed = int(config["seed"])
        return OmegaConf.to_object(split), OmegaConf.to_object(measured), seed  # type: ignore[return-value]
    except (OSError, KeyError, TypeError, OmegaConfBaseException):
        return None


def shared_window(operands: list[Operand], work_dir: str | None, most: int, seed: int) -> Window:
    """Return the window of a work directory: that of its evaluation, else of a bundle's own settings.

    Args:
        operands: both sides.
        work_dir: the work directory; None takes that of the second operand, or of the first.
        most: queries of a seeded sample; 0 takes all.
        seed: of the sample.

    Raises:
        InputError: no dataset, or no protocol.
    """
    found = [operand.work for operand in reversed(operands) if operand.work is not None]
    if work_dir is None and not found:
        raise InputError(
            "compare: no dataset is beside either of them; name the work directory that has it: work_dir=DIR"
        )
    work = Path(work_dir) if work_dir is not None else found[0]
    dataset = load_dataset(work / DATASET)
    vectors = frozen_vectors(work, len(dataset.catalogue))
    result = read_result(work / EVALUATION)
    if result is not None:
        window = window_of_result(dataset, result, work / EVALUATION, vectors)
    else:
        bundles = [o.path / VERSIONS / o.version for o in reversed(operands) if o.kind is Kind.bundle]
        settings = next((s for folder in bundles if (s := run_settings(folder))), None)
        if settings is None:
            raise InputError(
                f"{work}: neither an evaluation nor a bundle says how to divide the events; "
                f"run `shelfwise evaluate work_dir={work}` first"
            )
        split, evaluation, own_seed = settings
        divided = make_split(dataset, split, evaluation.target_events)
        window = make_window(dataset, divided, evaluation, own_seed, vectors=vectors)
    return replace(window, queries=sample_queries(window.queries, most, seed))


def _of_evaluation(operand: Operand, window: Window) -> Measured:
    """Return the lists that an evaluation wrote, after checking that it asked the same."""
    folder = operand.path / EVALUATION
    result = read_result(folder)
    assert result is not None
    protocol = result["protocol"]
    if protocol["dataset_hash"] != window.dataset.info.get("content_hash"):
        raise InputError(
            f"compare: {operand.text}: evaluated on another dataset; compare the bundles on one dataset "
            f"instead: {operand.path / 'artifacts'}"
        )
    own = window_of_result(window.dataset, result, folder)
    if own.name != window.name or not np.isin(_keys(window), _keys(own)).all():
        raise InputError(
            f"compare: {operand.text}: evaluated on other queries ({own.name}, {own.split.kind.value}, "
            f"{len(own.queries):,}); evaluate it with the settings of the other one, or compare the bundles"
        )
    name = str(protocol["system"])
    lists = read_predictions(str(folder / PREDICTIONS_FILE), window)
    facts = {
        "kind": operand.kind.value,
        "place": str(operand.path),
        "system": name,
        "code_version": protocol.get("code_version"),
        "refit": protocol.get("refit"),
        "exclude_seen": protocol["exclude_seen"],
        "dataset_hash": protocol["dataset_hash"],
        "items": protocol["items"],
    }
    return measure(operand.name, window, lists.items, lists.scores, facts, lists.others)


def _keys(window: Window) -> np.ndarray:
    """Return the position of each query among the events."""
    return window.queries.end


def lists_of(
    operand: Operand,
    window: Window,
    device: torch.device,
    allow_leak: bool,
    advance: Callable[[int], None] | None = None,
) -> tuple[Measured, list[str]]:
    """Return an operand's lists on a window, and what to know about them.

    Raises:
        LeakError: a bundle has learned from the window, unless that is allowed.
        InputError: a damaged bundle, other queries or another dataset.
    """
    if operand.kind is Kind.evaluation:
        return _of_evaluation(operand, window), []
    if operand.kind is Kind.file:
        lists = read_predictions(str(operand.path), window)
        facts = {"kind": operand.kind.value, "place": str(operand.path), **lists.facts}
        return measure(operand.name, window, lists.items, lists.scores, facts, lists.others), lists.notes
    bundle = load_bundle(operand.path, operand.version, device=device)
    settings = run_settings(operand.path / VERSIONS / operand.version)
    leak = learned_from(bundle.manifest, settings[0].kind if settings else None, window)
    if leak is not None and not allow_leak:
        raise LeakError(
            f"compare: {operand.name} may have learned from the {window.name} window: {leak}; its numbers "
            "would be too good. Name a dataset with a later window (work_dir=DIR), or add leakage=true to "
            "compare anyway"
        )
    found = measure_bundle(operand.name, bundle, window, str(operand.path), advance)
    return found, bundle_notes(found, window, leak)


def bundle_notes(found: Measured, window: Window, leak: str | None) -> list[str]:
    """Return what to know about a bundle's numbers; `leak` is why it may have learned from the window."""
    notes = []
    if leak is not None:
        notes.append(
            f"LEAKAGE: {found.name} may have learned from the {window.name} window ({leak}): its numbers are "
            "too good"
        )
    lacking = found.facts["targets_it_cannot_list"]
    if lacking:
        notes.append(
            f"{found.name} does not have {lacking:,} of {len(window.queries.targets):,} targets in its "
            "catalogue; they count as missed, although a server may have added their items since"
        )
    if found.facts["exclude_seen"] != window.exclude_seen:
        rule = "leaves out" if window.exclude_seen else "keeps"
        notes.append(
            f"{found.name} serves with another rule for seen items; this comparison {rule} them for both"
        )
    return notes
