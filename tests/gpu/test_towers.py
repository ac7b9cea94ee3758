"""Stage two trained on a GPU; needs one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conf.encoders import UserEncoderConfig
from encoders.towers.towers import Towers, best_items
from encoders.training.fitting import MONITORED, Fit, fit
from encoders.training.stage_two import StageTwo
from features.data.dataset import Events
from features.data.splits import Queries
from tests.synthetic import random_units

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
ITEMS, USERS = 600, 1500
CONFIG = UserEncoderConfig(
    dim=32,
    dropout=0.1,
    epochs=8,
    min_windows_per_epoch=0,
    negatives=256,
    negative_power=0.5,
    learning_rate=5e-3,
)


def walks() -> tuple[Events, np.ndarray]:
    """Users who mostly go on to the next item but one; and where each one's last event is."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(6, 20, USERS)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    steps = np.where(rng.random(offsets[-1]) < 0.8, 2, rng.integers(0, ITEMS, offsets[-1]))
    walked = np.cumsum(steps)
    item = (
        walked - np.repeat(walked[offsets[:-1]], sizes) + np.repeat(rng.integers(0, ITEMS, USERS), sizes)
    ) % ITEMS
    user = np.repeat(np.arange(USERS), sizes).astype(np.int32)
    kind = rng.integers(0, 2, offsets[-1]).astype(np.int8)
    time = np.arange(offsets[-1], dtype=np.int64) * 60
    return Events(user, item.astype(np.int32), kind, time, offsets), offsets[1:] - 1


def module() -> StageTwo:
    events, end = walks()
    vectors = random_units(ITEMS, 48)
    torch.manual_seed(0)
    towers = Towers.from_config(CONFIG, vectors.shape[1], ITEMS, 2)
    towers.item_tower.fit_text(vectors, np.ones(ITEMS, dtype=np.bool_))
    valid = Queries(
        np.arange(USERS, dtype=np.int32), end, np.zeros(USERS, np.int64), np.arange(USERS + 1),
        events.item[end], np.zeros(USERS, np.int32),
    )  # fmt: skip
    return StageTwo(towers, CONFIG, events, end, vectors, np.array([1.0, 0.5], np.float32), valid, False, 0)


def fitted(folder: Path, device: torch.device, epochs: int = CONFIG.epochs) -> tuple[StageTwo, Fit]:
    made = module()
    result = fit(
        made, folder, max_epochs=epochs, patience=epochs, monitor=MONITORED, device=device, clip_norm=1.0
    )
    return made, result


def test_it_learns_on_a_gpu_what_it_learns_on_the_cpu(tmp_path: Path) -> None:
    here, there = fitted(tmp_path / "cpu", CPU)[1], fitted(tmp_path / "gpu", CUDA)[1]
    assert here.best > 0.5, "ten items at random would hold one in sixty"
    assert there.best == pytest.approx(here.best, abs=0.03)


def test_a_run_cut_off_on_a_gpu_goes_on_and_ends_on_the_cpu(tmp_path: Path) -> None:
    fitted(tmp_path, CUDA, epochs=2)
    made, result = fitted(tmp_path, CUDA, epochs=4)
    assert len(result.history) == 4
    assert result.history[3] > result.history[0]
    assert {t.device for t in made.state_dict().values()} == {CPU} == {made.data.whitened.device}


def test_no_step_makes_the_host_wait() -> None:
    made = module()
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
            nn.utils.clip_grad_norm_(made.towers.parameters(), 1.0)
            optimizer.step()
            made.on_train_batch_end(None, batch, number)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert bool(torch.isfinite(loss))


def test_vectors_and_lists_are_those_of_the_cpu() -> None:
    towers = module().trained.eval()
    text = random_units(ITEMS, 48)
    vectors = towers.item_vectors(text)
    lists = best_items(torch.from_numpy(vectors[:50]), torch.from_numpy(vectors), 10)
    towers.to(CUDA)
    np.testing.assert_allclose(towers.item_vectors(text), vectors, atol=1e-4)
    catalogue = torch.from_numpy(vectors).to(CUDA)
    assert (best_items(catalogue[:50], catalogue, 10) == lists).mean() > 0.98
