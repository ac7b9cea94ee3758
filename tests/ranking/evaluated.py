"""A small evaluation that the tests of evaluation and report share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from conf.schema import EvaluationConfig, SplitConfig, SplitKind
from features.data.dataset import BoolArray, Dataset, FloatArray
from features.data.splits import Queries, Split, make_split
from ranking.evaluation.evaluation import Evaluation, SystemLists, WindowSystems, evaluate_lists
from ranking.evaluation.stage_recall import System

CONFIG = EvaluationConfig(ks=[1, 5, 20, 100], baselines=["popularity", "item_knn"], bootstrap=200)


def split_of(dataset: Dataset, kind: SplitKind = SplitKind.global_time) -> Split:
    return make_split(dataset, SplitConfig(kind=kind), [])


def oracle(n_items: int, seed: int = 0) -> System:
    """Put the first target of three queries in four on top of a random list; two sources share the catalogue.

    A query's list depends on the query alone, so that blocks and samples do not change it.
    """

    def answer(queries: Queries, allowed: BoolArray | None = None) -> SystemLists:
        rows = []
        for user, start in zip(queries.user, queries.target_offsets[:-1], strict=True):
            row = np.random.default_rng([seed, int(user)]).permutation(n_items)
            if user % 4:
                target = queries.targets[start]
                row = np.concatenate([[target], row[row != target]])
            rows.append(row)
        full = np.array(rows, dtype=np.int32).reshape(len(queries), n_items)
        if allowed is not None:
            full = full[allowed[full]].reshape(len(queries), int(allowed.sum()))
            return SystemLists(full[:, :100], -full[:, :100].astype(np.float32), {}, full, full)
        scores = np.broadcast_to(-np.arange(n_items, dtype=np.float32), full.shape)
        half = n_items // 2
        sources = {"first_half": full[:, :half], "last_half": full[:, half:]}
        return SystemLists(full[:, :100], scores[:, :100], sources, full[:, ::-1], full[:, ::-1])

    return answer


def in_both(systems: WindowSystems) -> dict[str, Callable[[], WindowSystems]]:
    """The same systems in the validation and the test window."""
    return {"valid": lambda: systems, "test": lambda: systems}


def evaluate(
    dataset: Dataset,
    *,
    vectors: FloatArray | None = None,
    config: EvaluationConfig = CONFIG,
    kind: SplitKind = SplitKind.global_time,
    name: str = "shelfwise",
    seed: int = 3,
    parts: dict[str, System] | None = None,
) -> Evaluation:
    return evaluate_lists(
        in_both(WindowSystems(oracle(len(dataset.catalogue)), parts or {})),
        dataset,
        split_of(dataset, kind),
        config,
        exclude_seen=False,
        vectors=vectors,
        seed=seed,
        code_version="0.0-test",
        name=name,
    )
