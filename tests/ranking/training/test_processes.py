"""Several processes compute the ranking head's loss, gradients and metric of one that has the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from conf.schema import RankerConfig
from ranking.training.examples import Examples
from ranking.training.ranker_module import RankerModule
from tests.encoders.towers.test_towers import Logged
from tests.encoders.training.test_processes import (  # fmt: skip
    Learnt,
    assert_learnt_alike,
    learnt,
    learnt_by_each,
)
from tests.ranking.scoring.test_ranker import examples, untrained

SIZES = {"whole batches": 20, "uneven last batch": 7, "fewer queries than processes": 2}
"""Queries per batch. Of 23 queries; the last batch of the second has 2 for 3 processes."""


def lists_of_many_kinds(queries: int = 23) -> Examples:
    """Lists of several lengths, of which some have several positives, some none, and one has no candidate."""
    rng = np.random.default_rng(1)
    plain = examples(queries)
    real = np.arange(12) < rng.integers(3, 13, size=queries)[:, None]
    real[4] = False
    chosen = (rng.random(real.shape) < 0.2) & real
    chosen[5] = False
    share = rng.uniform(0.1, 1.0, size=queries).astype(np.float32)
    return replace(
        plain, real=real, chosen=chosen, bought=chosen & (rng.random(real.shape) < 0.5), negative_share=share,
        targets=np.maximum(chosen.sum(axis=1), 1).astype(np.int32),
    )  # fmt: skip


def last_step(module: RankerModule) -> Learnt:
    """Learn from the last batch of an epoch, and validate."""
    module.log = Logged()  # type: ignore[assignment]
    for number, batch in enumerate(module.train_dataloader()):
        module.on_train_batch_start(batch, number)
        loss = module.training_step(batch, number)
    found = learnt(module, loss)
    with torch.inference_mode():
        module.validation_step(torch.zeros(1), 0)
    found[1]["ndcg"] = torch.tensor(module.log.values["valid_ndcg"])  # type: ignore[attr-defined]
    return found


@pytest.fixture(scope="module")
def found(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Learnt], list[dict[str, Learnt]]]:
    """Return what one process learns in each case, and what each of several does."""
    lists = lists_of_many_kinds()
    jobs: dict[str, Callable[[], Learnt]] = {
        name: partial(
            last_step,
            RankerModule(untrained(), RankerConfig(batch_size=size), lists, lists.select(np.arange(11)), 0),
        )
        for name, size in SIZES.items()
    }
    several = learnt_by_each(jobs, tmp_path_factory.mktemp("ranker"))
    return {name: job() for name, job in jobs.items()}, several


@pytest.mark.parametrize("case", SIZES)
def test_processes_learn_what_one_learns_from_the_joint_batch(
    case: str, found: tuple[dict[str, Learnt], list[dict[str, Learnt]]]
) -> None:
    assert_learnt_alike(case, *found)
    assert 0.0 < float(found[0][case][1]["ndcg"]) < 1.0
