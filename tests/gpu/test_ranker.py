"""The ranking head trained on a GPU, and baselines that score there; needs one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conf.schema import RankerConfig
from encoders.training.fitting import Fit, fit
from ranking.baselines.registry import BaselineInputs, make_baselines
from ranking.training.ranker_module import RankerModule, raw_logits
from tests.ranking.baselines.test_registry import ask, everything, make_events
from tests.ranking.scoring.test_ranker import examples, untrained
from tests.ranking.scoring.test_ranker_device import padded
from tests.synthetic import random_units

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
CONFIG = RankerConfig(batch_size=20, learning_rate=1e-2)


def fitted(folder: Path, device: torch.device) -> tuple[RankerModule, Fit]:
    made = RankerModule(untrained(), CONFIG, padded(400), examples(200, seed=2), 0)
    result = fit(made, folder, max_epochs=6, patience=6, monitor="valid_ndcg", device=device, clip_norm=5.0)
    return made, result


@pytest.mark.parametrize("resident", [True, False])
def test_it_learns_on_a_gpu_what_it_learns_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resident: bool
) -> None:
    here, expected = fitted(tmp_path / "cpu", CPU)
    if not resident:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 1000))
    there, found = fitted(tmp_path / "gpu", CUDA)
    assert expected.best > 0.75
    assert found.history == pytest.approx(expected.history, abs=0.01)
    features = examples(seed=3).features
    np.testing.assert_allclose(
        raw_logits(there.trained, features), raw_logits(here.trained, features), atol=0.05
    )


def test_no_step_makes_the_host_wait() -> None:
    made = RankerModule(untrained(dropout=0.1), CONFIG, padded(200), None, 0)
    made.log = lambda *_, **__: None  # type: ignore[method-assign]
    made.to(CUDA)
    made.on_fit_start()
    optimizer = made.configure_optimizers()
    for number, batch in enumerate(made.train_dataloader()):
        torch.cuda.set_sync_debug_mode("error" if number > 2 else "default")
        try:
            made.on_train_batch_start(batch, number)
            loss = made.training_step(batch, number)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(made.ranker.parameters(), 5.0)
            optimizer.step()
            made.on_train_batch_end(None, batch, number)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert bool(torch.isfinite(loss))


@pytest.mark.parametrize("name", ["frozen_text", "ease"])
def test_lists_of_baselines_are_those_of_the_cpu(name: str) -> None:
    rng = np.random.default_rng(0)
    events = make_events([rng.integers(0, 200, rng.integers(1, 30)).tolist() for _ in range(300)])

    def lists(device: torch.device) -> tuple[np.ndarray, np.ndarray]:
        (baseline,) = make_baselines([name], BaselineInputs(None, random_units(250, 32), device=device))
        baseline.fit(events, everything(events), 0, 250)
        return baseline.recommend(events, ask(events, list(range(300))), 20, True)

    (rows, scores), (rows_there, scores_there) = lists(CPU), lists(CUDA)
    np.testing.assert_allclose(scores_there, scores, atol=1e-3)
    assert (rows_there == rows).mean() > 0.97, "equal scores but for rounding may change places"
