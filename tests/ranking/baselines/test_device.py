"""Baselines whose scores are dense products give the CPU's lists where the products are made elsewhere."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import implicit.als
import implicit.gpu
import numpy as np
import pytest
import torch

from conf.errors import InputError
from encoders.factors.als import fit_als
from features.data.histories import histories_of
from ranking.baselines.factors import Ease
from ranking.baselines.lists import popularity_floor, top_k
from ranking.baselines.registry import BaselineInputs, make_baselines
from ranking.kernels.dense_scores import Floor, best_of
from tests.ranking.baselines.test_registry import ask, everything, make_events
from tests.second_device import second_device
from tests.synthetic import random_towers, random_units

ITEMS = 30
CPU = torch.device("cpu")


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("name", ["frozen_text", "als", "ease", "sasrec_ids"])
def test_lists_are_those_of_the_cpu(name: str, exclude_seen: bool) -> None:
    rng = np.random.default_rng(0)
    events = make_events([rng.integers(0, 25, rng.integers(0, 9)).tolist() for _ in range(40)])
    queries = ask(events, list(range(40)))
    allowed = np.arange(ITEMS) % 7 > 0

    def towers(_: object) -> Any:
        made = random_towers(1, ITEMS, 1)
        made.item_tower.seen.copy_(torch.arange(ITEMS) < 25)
        return made

    def lists(device: torch.device, only: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        inputs = BaselineInputs(None, random_units(ITEMS, 8), 0, towers, device)
        (baseline,) = make_baselines([name], inputs)
        baseline.fit(events, everything(events), 0, ITEMS)
        return baseline.recommend(events, queries, ITEMS + 2, exclude_seen, only)

    for only in (None, allowed):
        rows, scores = lists(CPU, only)
        with second_device() as device:
            rows_there, scores_there = lists(device, only)
        assert rows_there.dtype == rows.dtype
        assert scores_there.dtype == scores.dtype
        np.testing.assert_allclose(scores_there, scores, atol=1e-4)
        assert (rows_there == rows).mean() > 0.99, "equal scores but for rounding may change places"
        assert ((rows_there < 0) == (rows < 0)).all()


def test_the_floor_and_the_best_are_those_of_arrays() -> None:
    rng = np.random.default_rng(1)
    scores = rng.integers(-3, 3, (12, ITEMS)).astype(np.float32)  # many are equal
    share, known, said = rng.random(ITEMS).astype(np.float32), rng.random(ITEMS) > 0.3, np.arange(12) % 4 > 0
    events = make_events([[int(i), int(i) + 1] for i in range(12)])
    histories = histories_of(events, ask(events, list(range(12))))
    expected = popularity_floor(scores, share, said[:, None] & known)
    with second_device() as device:
        found = Floor(share, known, device).under(torch.from_numpy(scores).to(device), said)
        assert np.array_equal(found.cpu().numpy(), expected)
        rows, values = best_of(found, histories, 20, True, np.arange(ITEMS) != 5)
    expected[histories.owners(), histories.items] = -np.inf
    expected[:, 5] = -np.inf
    rows_here, values_here = top_k(expected, 20)
    assert np.array_equal(rows, rows_here)
    assert np.array_equal(values, values_here)


def test_a_matrix_that_cannot_be_inverted_is_named_there_too() -> None:
    once = make_events([[0, 1], [0, 1]])
    with second_device() as device, pytest.raises(InputError, match="raise its regularisation"):
        Ease(regularisation=-2.0, device=device).fit(once, everything(once), 0, 4)


@pytest.mark.parametrize(
    ("device", "built", "used"),
    [("cpu", True, False), ("cuda:0", True, True), ("cuda:0", False, False), ("cuda:1", True, False)],
)
def test_least_squares_run_on_a_gpu_where_the_library_can(
    monkeypatch: pytest.MonkeyPatch, device: str, built: bool, used: bool
) -> None:
    asked: dict[str, Any] = {}

    def model(**settings: Any) -> SimpleNamespace:
        asked.update(settings)
        here = SimpleNamespace(place="cpu")
        return SimpleNamespace(place="gpu", fit=lambda *_, **__: None, to_cpu=lambda: here)

    monkeypatch.setattr(implicit.als, "AlternatingLeastSquares", model)
    monkeypatch.setattr(implicit.gpu, "HAS_CUDA", built)
    found: Any = fit_als(
        None, factors=8, regularisation=0.1, confidence=2.0, iterations=3, seed=5, device=torch.device(device)
    )
    assert asked == {
        "factors": 8, "regularization": 0.1, "alpha": 2.0, "iterations": 3, "random_state": 5,
        "use_gpu": used,
    }  # fmt: skip
    assert found.place == ("cpu" if used else "gpu")
