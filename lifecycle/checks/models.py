"""Drift of the ranking head's features and of the scores between the served model and a new one.

Both answer the same requests. Whether the lists are worse is measured by the gate; a drift names the
features to look at, and only warns: models of successive nights of a large shop are much alike, those of a
young one are not: its items are on sale for twice as long two weeks later. What no training explains
refuses: a feature that has become constant, as after a column of the catalogue was lost, and scores that are
all equal or no numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from conf.drift import ChecksConfig
from features.data.histories import histories_of
from lifecycle.checks.check import Check, Finding, judged, not_judged
from lifecycle.checks.statistics import Drift, Numbers, drift
from ranking.bundle.bundle import Bundle, load_bundle
from ranking.comparison.bundles import translate
from ranking.comparison.window import Window
from ranking.training.examples import query_limits

REQUESTS: Final = 200
"""Shoppers of the window whose candidates are compared."""
_VALUES: Final = 20_000
"""Candidates of them that are compared."""
_SHOWN: Final = 3


@dataclass(frozen=True)
class ModelSample:
    """What a model computes for the sampled requests."""

    features: dict[str, Numbers]
    """Feature -> [candidates] values."""
    scores: Numbers  # [candidates]


def compare_models(
    store: Path,
    staged: Path,
    manifest: dict[str, Any],
    current: str,
    window: Window,
    device: torch.device,
    limits: ChecksConfig,
) -> list[Check]:
    """Compare a version that is about to become current with the current one.

    Args:
        store: the artifact folder.
        staged: folder of the new version's files, in the store.
        manifest: of the new version.
        current: the current version.
        window: requests that neither has learnt from.
        device: where the models run.
        limits: what is still normal.

    Raises:
        InputError: a version cannot be loaded.
    """
    served = sample_model(load_bundle(store, current, device=device), window)
    new = sample_model(load_bundle(store, staged.name, manifest=manifest, device=device), window)
    return check_models(served, new, limits)


def sample_model(bundle: Bundle, window: Window) -> ModelSample:
    """Return features and scores of the candidates of some shoppers of a window.

    Args:
        bundle: loaded as a server loads it.
        window: requests that neither model has learnt from.
    """
    chosen = np.unique(np.linspace(0, len(window.queries) - 1, REQUESTS).astype(np.int64))
    moved = translate(window.dataset, window.queries.select(chosen), bundle)
    recommender = bundle.recommender
    batch = histories_of(moved.events, moved.queries)
    limits = query_limits(recommender, moved.events, moved.queries, window.exclude_seen, None)
    users = recommender.encode(batch)
    retrieved = recommender.retrieve(batch, limits, users)
    real = retrieved.candidates.rows >= 0
    values = recommender.features(batch, retrieved.candidates, users, retrieved.best)[real]
    scores = recommender.score(batch, users, retrieved).scores[real]
    step = max(len(values) // _VALUES, 1)
    names = recommender.layout.names
    columns = {name: values[::step, place].astype(np.float64) for place, name in enumerate(names)}
    return ModelSample(columns, scores[::step].astype(np.float64))


def check_models(served: ModelSample, new: ModelSample, limits: ChecksConfig) -> list[Check]:
    """Compare a new model with the served one.

    Args:
        served: of the served model.
        new: of the new model, for the same requests.
        limits: what is still normal.
    """
    if min(len(served.scores), len(new.scores)) < limits.min_events:
        return [not_judged("scores", f"{len(new.scores):,} candidates: too few to judge")]
    return [*_features(served, new, limits), _scores(served, new, limits)]


def _features(served: ModelSample, new: ModelSample, limits: ChecksConfig) -> Iterator[Check]:
    common = [name for name in new.features if name in served.features]
    dead = [name for name in common if _varies(served.features[name]) and not _varies(new.features[name])]
    yield judged(
        Finding(
            "features_dead",
            float(len(dead)),
            0.5,
            f"{len(dead)} of {len(common)} features are the same for every candidate and were not",
            examples=", ".join(dead[:_SHOWN]),
            fix="Has a column of the items or a source of candidates been lost?",
        ),
        limits,
    )
    for name in common:
        before, now = served.features[name], new.features[name]
        if not (_varies(before) and np.isfinite(now).all()):
            continue
        yield _drifted(f"features.{name}", f"feature {name}", drift(before, now), before, now, limits)


def _scores(served: ModelSample, new: ModelSample, limits: ChecksConfig) -> Check:
    finite = np.isfinite(new.scores)
    if not finite.all() or not _varies(new.scores):
        share = float(1 - finite.mean()) if not finite.all() else 1.0
        what = "are no numbers" if not finite.all() else "are all the same"
        return judged(
            Finding("scores", share, 1e-9, f"{share:.1%} of the scores {what}", fix="Has training diverged?"),
            limits,
        )
    distance = drift(served.scores, new.scores)
    return _drifted("scores", "scores", distance, served.scores, new.scores, limits)


def _drifted(
    name: str, what: str, distance: Drift, before: Numbers, now: Numbers, limits: ChecksConfig
) -> Check:
    return judged(
        Finding(
            name,
            distance.psi,
            limits.psi,
            f"{what}: {distance}, median {np.median(now):.4g}",
            normal=f"median {np.median(before):.4g}, as of the served model",
            fix="Has the data that it is made of changed, or a setting of the training?",
            warn_above=limits.psi,
            only_warns=True,
        ),
        limits,
    )


def _varies(values: npt.NDArray[np.float64]) -> bool:
    return bool(len(values)) and bool((values != values[0]).any())
