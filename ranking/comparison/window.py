"""The queries that systems are compared on, from the settings of a run or from its evaluation's protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from conf.errors import InputError
from conf.schema import EvaluationConfig, SplitConfig, SplitKind
from features.data.dataset import Dataset, FloatArray, LongArray
from features.data.prefixes import item_counts
from features.data.splits import Queries, Split, events_before, exclude_seen, make_split
from ranking.baselines.registry import fit_ends
from ranking.evaluation.diagnostics.exposure import Exposure
from ranking.evaluation.evaluation import sample_queries
from ranking.evaluation.slices import Slice, make_slices

METRICS_FILE = "metrics.json"
FROZEN_VECTORS = Path("encoder") / "frozen_vectors.npy"
TEST = "test"


@dataclass(frozen=True)
class Window:
    """The measured queries of a dataset, and everything that defines them."""

    name: str
    """`test` or `valid`."""
    dataset: Dataset
    split: Split
    queries: Queries
    exclude_seen: bool
    """Whether lists leave out the user's own history."""
    ks: list[int]
    vectors: FloatArray | None = None
    """[items, dim] unit vectors of the text encoder before any training, for diversity; None if unknown."""

    @cached_property
    def counts(self) -> LongArray:
        """Training events per item, [items]."""
        return item_counts(self.dataset.events, self.split.train_end, len(self.dataset.catalogue))

    @cached_property
    def exposure(self) -> Exposure:
        """What the exposure of lists is compared with."""
        known_end, _ = fit_ends(self.split, self.name)
        return Exposure.of(self.dataset, self.queries, self.counts, known_end)

    @cached_property
    def slices(self) -> list[Slice]:
        """The slices that a result reports."""
        return make_slices(self.dataset, self.split, self.queries, self.counts)

    @property
    def begins(self) -> int:
        """Unix seconds at which the window begins; under leave-one-out the earliest target's time."""
        if self.split.kind is SplitKind.global_time:
            return self.split.state_time if self.name == TEST else self.split.train_time
        return int(self.dataset.events.time[self.queries.end].min(initial=np.iinfo(np.int64).max))

    def facts(self) -> dict[str, Any]:
        """Return what defines the window, as plain values."""
        return {
            "name": self.name,
            "split": self.split.kind.value,
            "queries": len(self.queries),
            "targets": len(self.queries.targets),
            "items": len(self.dataset.catalogue),
            "exclude_seen": self.exclude_seen,
            "dataset_hash": self.dataset.info.get("content_hash"),
        }


def make_window(
    dataset: Dataset,
    split: Split,
    config: EvaluationConfig,
    seed: int,
    name: str = TEST,
    vectors: FloatArray | None = None,
) -> Window:
    """Return the window of `shelfwise evaluate` with the same settings.

    Args:
        dataset: the dataset.
        split: its protocol.
        config: exclusion, cutoffs, sampling.
        seed: of the sampling.
        name: `test` or `valid`.
        vectors: text vectors before any training.

    Raises:
        InputError: the window has no query.
    """
    queries = sample_queries(getattr(split, name), config.max_users, seed)
    if len(queries) == 0:
        raise InputError(
            f"the {name} window holds no relevant event; check split and evaluation.target_events"
        )
    exclude = exclude_seen(dataset, split, config.exclude_seen)
    return Window(name, dataset, split, queries, exclude, sorted({*config.ks, 10}), vectors)


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the metrics.json of an evaluation folder, or None where there is none.

    Raises:
        InputError: a file that is not a result.
    """
    path = folder / METRICS_FILE
    if not path.is_file():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        result["protocol"]["queries"][result["protocol"]["measured"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a result of `shelfwise evaluate`; evaluate again") from error
    return result


def split_of_protocol(dataset: Dataset, protocol: Mapping[str, Any]) -> Split:
    """Return the split that a result was measured on, from its recorded cut times."""
    kind, cuts = SplitKind(protocol["split"]), protocol["cut_times"]
    config = SplitConfig(kind=kind)
    if cuts is not None:
        events = dataset.events
        ranker, valid = (
            int(np.datetime64(cuts[name].removesuffix("Z"), "s").astype(np.int64))
            for name in ("ranker_start", "valid_start")
        )
        between = events_before(events, valid) - events_before(events, ranker)
        share = (between - 0.5) / len(events)
        config = SplitConfig(
            kind=kind,
            # Decides nothing that is measured; a share that fits keeps the window from being empty.
            ranker_fraction=min(max(share, 1e-9), 0.69),
            valid_start=cuts["valid_start"],
            test_start=cuts["test_start"],
        )
    return make_split(dataset, config, list(protocol["target_events"]))


def window_of_result(
    dataset: Dataset, result: Mapping[str, Any], folder: Path, vectors: FloatArray | None = None
) -> Window:
    """Return the main window of a result.

    Args:
        dataset: the dataset that it was measured on.
        result: the content of metrics.json.
        folder: of the evaluation, for messages.
        vectors: text vectors before any training.

    Raises:
        InputError: the dataset is another one by now.
    """
    protocol = result["protocol"]
    if protocol["dataset_hash"] != dataset.info.get("content_hash"):
        raise InputError(
            f"{folder / METRICS_FILE}: measured on other data than the dataset beside it; "
            "run `shelfwise evaluate` again"
        )
    config = EvaluationConfig(
        exclude_seen=protocol["exclude_seen"], ks=protocol["ks"], max_users=protocol["max_users"]
    )
    split = split_of_protocol(dataset, protocol)
    name = protocol["measured"]
    window = make_window(dataset, split, config, protocol["seed"], name, vectors)
    if len(window.queries) != protocol["queries"][name]:
        raise InputError(
            f"{folder / METRICS_FILE}: measured on {protocol['queries'][name]:,} queries, this program makes "
            f"{len(window.queries):,} of the same data; run `shelfwise evaluate` again"
        )
    return window


def frozen_vectors(work: Path, items: int) -> FloatArray | None:
    """Return a work directory's text vectors before any training, [items, dim], or None."""
    path = work / FROZEN_VECTORS
    if not path.is_file():
        return None
    vectors: FloatArray = np.load(path, mmap_mode="r")
    return vectors if len(vectors) == items else None
