"""The model as of the start of validation, and a fixed sample of its queries.

A bundle knows the validation events; lists that it makes for validation queries would look better than they
are. So the chosen models are put together with the statistics of that moment, as evaluation does: once, in
the background.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch

from conf.composition.compose import read_config
from conf.errors import InputError
from conf.schema import PipelineConfig
from explorer.model import LoadedModel
from explorer.rules.changes import request_of
from explorer.rules.costs import Cost, K, costs, lists_of
from explorer.rules.rule_set import RuleSet
from features.data.dataset import Dataset, IntArray, LongArray
from features.data.histories import histories_of
from features.data.splits import Queries
from ranking.bundle.bundle import CONFIG
from ranking.bundle.store import VERSIONS
from ranking.recommender import Recommender
from ranking.types import History

_LOG = logging.getLogger(__name__)
QUERIES: Final = 400
"""Validation queries that rules are priced on, drawn once: an answer takes a few seconds."""
SEED: Final = 0
KEPT: Final = 20
"""Rules whose lists are kept."""


@dataclass(frozen=True)
class Validation:
    """What rules are priced with."""

    recommender: Recommender
    """As of the start of validation."""
    dataset: Dataset
    queries: Queries
    of: int
    """Validation queries that there are."""
    counts: LongArray  # [items] events before validation
    known: dict[bytes, IntArray] = field(default_factory=dict)
    """Lists of the last rules, by their message."""

    def lists(self, model: LoadedModel, rules: RuleSet) -> IntArray:
        """Return the lists of the queries under rules, [queries, 10] padded with -1."""
        key = rules.message.SerializeToString(deterministic=True)
        if key in self.known:
            return self.known[key]
        batch = histories_of(self.dataset.events, self.queries)
        requests = []
        for query in range(len(self.queries)):
            part = slice(int(batch.offsets[query]), int(batch.offsets[query + 1]))
            history = History(batch.items[part], batch.kinds[part].astype(np.int8), batch.times[part])
            request = request_of(model, history, int(self.queries.time[query]), K, rules)
            requests.append(request.explored_by(query))
        while len(self.known) >= KEPT:
            del self.known[next(iter(self.known))]
        self.known[key] = lists_of(self.recommender.recommend(requests))
        return self.known[key]

    def price(self, model: LoadedModel, before: RuleSet, after: RuleSet) -> tuple[Cost, ...]:
        """Return what rules cost."""
        lists = [self.lists(model, rules) for rules in (before, after)]
        return costs(lists[0], lists[1], self.queries, self.dataset.events, self.counts)


def load_validation(store: Path, model: LoadedModel, device: torch.device) -> Validation:
    """Put the model as of the start of validation together; takes seconds to minutes.

    Raises:
        InputError: the work directory beside the store lacks what is needed, or is of another run.

    """
    from encoders.training.train import try_split
    from features.data.dataset import load_dataset
    from ranking.evaluation.evaluation import sample_queries
    from ranking.pipeline.validation import validation_recommender

    work = store.parent
    config = read_config(PipelineConfig, store / VERSIONS / model.version / CONFIG, work_dir=str(work))
    dataset = load_dataset(work / "dataset")
    if dataset.info["content_hash"] != model.bundle.manifest["dataset_hash"]:
        raise InputError(f"{work / 'dataset'}: is not the data that this bundle was made from")
    split = try_split(config, dataset)
    if split is None or not len(split.valid):
        raise InputError(f"{work / 'dataset'}: has too few events to hold any out for validation")
    near = model.recommender.arrays.text_near
    recommender = validation_recommender(config, dataset, split, near, device)
    queries = sample_queries(split.valid, QUERIES, SEED)
    counts = recommender.arrays.statistics.count.astype(np.int64)
    return Validation(recommender, dataset, queries, len(split.valid), counts)


class ValidationLoader:
    """Holds the validation model of one version; it is made in the background at the first question."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._version = ""
        self._found: Validation | None = None
        self._failed = ""
        self._thread: threading.Thread | None = None

    def of(self, store: Path, model: LoadedModel) -> tuple[Validation | None, str]:
        """Return the validation model, or None and why there is none; without a reason it is being made."""
        with self._lock:
            if self._version != model.version:
                self._version, self._found, self._failed = model.version, None, ""
                self._thread = threading.Thread(
                    target=self._load, args=(store, model), name="validation", daemon=True
                )
                self._thread.start()
            return self._found, self._failed

    def wait(self) -> None:
        """Return once nothing is being made."""
        if self._thread is not None:
            self._thread.join()

    def _load(self, store: Path, model: LoadedModel) -> None:
        found, failed = None, ""
        try:
            found = load_validation(store, model, model.bundle.device)
        except InputError as error:
            failed = str(error)
        except OSError as error:
            failed = f"{error.filename}: {error.strerror}"
        except Exception:
            _LOG.exception("the validation model cannot be made")
            failed = "The validation model cannot be made; the explorer's log says why."
        with self._lock:
            if self._version == model.version:
                self._found, self._failed = found, failed


VALIDATION: Final = ValidationLoader()
"""Of this process."""
