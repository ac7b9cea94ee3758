from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conf.encoders import UserEncoderConfig
from conf.errors import InputError
from encoders.losses import sampled_softmax
from encoders.towers import item_tower
from encoders.towers.item_tower import ItemTower, whitening
from encoders.towers.sequences import recent
from encoders.towers.towers import Towers, best_items
from encoders.towers.user_tower import UserEncoder
from encoders.training.stage_two import StageTwo, TowerBatches, tower_recall
from features.data.dataset import Dataset, FloatArray
from features.data.splits import Queries
from tests.synthetic import everything, make_dataset, random_towers, random_units


def test_whitening_decorrelates_a_narrow_cone() -> None:
    rng = np.random.default_rng(0)
    cone = rng.normal(size=(4000, 8)) @ rng.normal(size=(8, 8)) + 20.0
    mean, matrix = whitening(cone.astype(np.float32), shrinkage=1e-6)
    white = (cone - mean) @ matrix
    covariance = white.T @ white / len(white)
    np.testing.assert_allclose(covariance, np.eye(8) / 8, atol=2e-3)
    assert np.linalg.norm(white, axis=1).mean() == pytest.approx(1.0, abs=0.1)


def test_whitening_in_blocks_is_that_of_all_items(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = random_units(100, 8)
    mean, matrix = whitening(vectors)
    built = ItemTower(text_dim=8, items=100, dim=3, hybrid=False)
    built.fit_text(vectors, np.ones(100, dtype=np.bool_))
    whole = built.whitened(torch.from_numpy(vectors))
    monkeypatch.setattr(item_tower, "_ROWS", 7)
    in_blocks = whitening(vectors)
    np.testing.assert_array_equal(in_blocks[0], mean)
    np.testing.assert_allclose(in_blocks[1], matrix, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(built.whitened_catalogue(vectors), whole)


@pytest.mark.parametrize("items", [1, 2, 10])
def test_whitening_of_fewer_items_than_dimensions_is_finite_and_bounded(items: int) -> None:
    vectors = random_units(items, 96)
    mean, matrix = whitening(vectors)
    white = (vectors - mean) @ matrix
    assert np.isfinite(white).all()
    # Shrinkage bounds how far the empty directions may blow up.
    assert np.linalg.norm(white, axis=1).max() < 20.0
    assert matrix.dtype == mean.dtype == np.float32


def tower(hybrid: bool = True) -> ItemTower:
    torch.manual_seed(0)
    built = ItemTower(text_dim=6, items=4, dim=3, hybrid=hybrid)
    built.fit_text(random_units(4, 6), np.array([True, True, False, True]))
    return built


def test_a_seen_item_is_text_plus_residual_and_an_unseen_one_text_alone() -> None:
    built = tower()
    assert built.residual is not None
    assert built.project is not None
    text, rows = torch.randn(4, 6), torch.arange(4)
    vectors, alone = built(text, rows), built.project(text)
    torch.testing.assert_close(vectors[[0, 1, 3]], (alone + built.residual.weight)[[0, 1, 3]])
    assert torch.equal(vectors[2], alone[2])


def test_id_dropout_leaves_text_alone() -> None:
    built = tower()
    assert built.project is not None
    text, rows = torch.randn(4, 6), torch.arange(4)
    keep = torch.tensor([False, True, True, False])
    vectors, alone = built(text, rows, keep), built.project(text)
    assert torch.equal(vectors[[0, 2, 3]], alone[[0, 2, 3]])
    assert not torch.equal(vectors[1], alone[1])


def test_without_hybrid_ids_mean_nothing() -> None:
    built = tower(hybrid=False)
    text = torch.randn(1, 6)
    assert torch.equal(built(text, torch.tensor([0])), built(text, torch.tensor([3])))
    assert built.residual is None


def test_without_text_an_item_is_its_id_and_an_unseen_one_nothing() -> None:
    built = ItemTower(text_dim=6, items=4, dim=3, hybrid=True, text=False)
    built.fit_text(random_units(4, 6), np.array([True, True, False, True]))
    assert built.residual is not None
    assert built.project is None
    vectors = built(torch.randn(4, 6), torch.arange(4), torch.zeros(4, dtype=torch.bool))
    assert torch.equal(vectors[[0, 1, 3]], built.residual.weight[[0, 1, 3]])
    assert not vectors[2].any()


def test_towers_without_text_are_saved_and_loaded(tmp_path: Path) -> None:
    config = UserEncoderConfig(dim=4, layers=1, heads=2, text=False)
    towers = Towers.from_config(config, text_dim=6, items=4, kinds=1).eval()
    towers.item_tower.seen.fill_(True)
    towers.save(tmp_path)
    text = random_units(4, 6)
    np.testing.assert_array_equal(Towers.load(tmp_path).item_vectors(text), towers.item_vectors(text))
    with pytest.raises(InputError, match="user_encoder.text=false needs user_encoder.hybrid=true"):
        UserEncoderConfig(text=False, hybrid=False)


def test_the_residual_of_an_unseen_item_gets_no_gradient() -> None:
    built = tower()
    assert built.residual is not None
    built(torch.randn(4, 6), torch.arange(4)).square().sum().backward()
    gradient = built.residual.weight.grad
    assert gradient is not None
    assert gradient[2].abs().sum() == 0
    assert (gradient[[0, 1, 3]].abs().sum(1) > 0).all()


def test_item_vectors_do_not_depend_on_the_block(text_vectors: FloatArray) -> None:
    towers = random_towers(32, len(text_vectors), 2)
    whole = towers.item_vectors(text_vectors)
    np.testing.assert_allclose(towers.item_vectors(text_vectors, block=7), whole, atol=1e-6)
    assert whole.shape == (len(text_vectors), 16)
    assert whole.dtype == np.float32
    assert towers.item_vectors(text_vectors[:0]).shape == (0, 16)


def test_saved_towers_give_the_same_vectors(
    tmp_path: Path, dataset: Dataset, text_vectors: FloatArray
) -> None:
    towers = random_towers(32, len(text_vectors), 2)
    towers.item_tower.fit_text(text_vectors, np.arange(len(text_vectors)) % 2 == 0)
    towers.save(tmp_path / "towers")
    loaded = Towers.load(tmp_path / "towers")
    items = towers.item_vectors(text_vectors)
    assert np.array_equal(loaded.item_vectors(text_vectors), items)
    users = np.arange(5, dtype=np.int32)
    batch = recent(dataset.events, users, dataset.events.offsets[1:][users], 8)
    with torch.inference_mode():
        before = towers.user_vectors(batch, torch.from_numpy(items))
        assert torch.equal(loaded.user_vectors(batch, torch.from_numpy(items)), before)


def test_best_items_by_hand() -> None:
    items = torch.tensor([[1.0], [3.0], [2.0], [-1.0]])
    users = torch.tensor([[1.0], [-1.0]])
    assert best_items(users, items, 2).tolist() == [[1, 2], [3, 0]]
    exclude = (np.array([0, 0, 1], np.int32), np.array([1, 0, 3], np.int32))
    assert best_items(users, items, 2, exclude).tolist() == [[2, 3], [0, 2]]


def test_excluded_items_never_fill_a_list() -> None:
    exclude = (np.array([0, 0], np.int32), np.array([0, 2], np.int32))
    assert best_items(torch.ones(1, 1), torch.ones(3, 1), 5, exclude).tolist() == [[1, -1, -1]]


def queries(user: list[int], end: list[int], targets: list[list[int]]) -> Queries:
    flat = [t for part in targets for t in part]
    return Queries(
        np.array(user, np.int32),
        np.array(end, np.int64),
        np.zeros(len(user), np.int64),
        np.cumsum([0, *(len(t) for t in targets)]).astype(np.int64),
        np.array(flat, np.int32),
        np.zeros(len(flat), np.int32),
    )


def test_tower_recall_by_hand() -> None:
    data = make_dataset([("a", "x", "purchase", 0), ("b", "y", "purchase", 0)], ["x", "y", "z"])
    towers = random_towers(4, 3, 1)
    bought = torch.zeros(3, 16)
    with torch.inference_mode():
        # User a's history is x, whose vector stays zero, so the state can point the other two.
        state = towers.user_vectors(recent(data.events, np.array([0], np.int32), np.array([1]), 8), bought)[0]
    # z is what user a's vector points at, then x; y points away.
    bought[2], bought[1] = state * 1e-3, -state * 1e-3
    asked = queries([0, 0], [1, 1], [[2], [0, 1]])
    assert tower_recall(towers, bought, data.events, asked, False, 1).tolist() == [1.0, 0.0]
    assert tower_recall(towers, bought, data.events, asked, False, 2).tolist() == [1.0, 0.5]
    # Leaving out x, which user a has, moves y up; but x itself can no longer be found.
    assert tower_recall(towers, bought, data.events, asked, True, 2).tolist() == [1.0, 0.5]
    assert tower_recall(towers, bought, data.events, asked, True, 3).tolist() == [1.0, 0.5]


class Logged:
    """Stands for `LightningModule.log` and keeps what it is given."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def __call__(self, name: str, value: float, **_: object) -> None:
        self.values[name] = value


def stage_two(dataset: Dataset, vectors: FloatArray, config: UserEncoderConfig, seed: int = 0) -> StageTwo:
    torch.manual_seed(seed)
    towers = Towers.from_config(config, vectors.shape[1], len(vectors), len(dataset.kinds))
    towers.item_tower.fit_text(vectors, np.ones(len(vectors), dtype=np.bool_))
    module = StageTwo(
        towers, config, dataset.events, everything(dataset), vectors, dataset.kind_weights, None, True, 0
    )
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    return module


TINY = UserEncoderConfig(
    dim=8,
    heads=2,
    max_length=5,
    dropout=0.0,
    id_dropout=0.0,
    negatives=0,
    batch_size=4,
    min_windows_per_epoch=0,
)


def test_stage_two_with_all_negatives_is_the_naive_next_item_loss(
    dataset: Dataset, text_vectors: FloatArray
) -> None:
    module = stage_two(dataset, text_vectors, TINY)
    whole = next(iter(TowerBatches(dataset.events, everything(dataset), TINY, 0)))
    loss = module.training_step(whole, 0)
    batch = whole.events
    items = torch.from_numpy(module.towers.item_vectors(text_vectors))
    total = mass = 0.0
    with torch.inference_mode():
        for row in range(len(batch.rows)):
            real = batch.valid[row]
            rows, kinds, times = batch.rows[row][real], batch.kinds[row][real], batch.times[row][real]
            states = module.towers.user_encoder(
                items[rows[:-1]][None],
                kinds[None, :-1],
                times[None, :-1],
                torch.ones(1, len(rows) - 1, dtype=torch.bool),
            )[0]
            logits = states @ items[module.data.trainable_rows].T
            for place, target in enumerate(rows[1:]):
                weight = float(dataset.kind_weights[int(kinds[place + 1])])
                column = int(torch.searchsorted(module.data.trainable_rows, target))
                total += weight * float(-torch.log_softmax(logits[place], 0)[column])
                mass += weight
    assert loss.item() == pytest.approx(total / mass, rel=1e-4)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_negatives_are_drawn_by_popularity_to_a_power(
    dataset: Dataset, text_vectors: FloatArray, monkeypatch: pytest.MonkeyPatch, power: float
) -> None:
    import encoders.training.stage_two as module_two

    module = stage_two(dataset, text_vectors, replace(TINY, negatives=50, negative_power=power))
    assert len(module.data.trainable_rows) == 60, "every item of the shop was bought"
    counts = np.bincount(dataset.events.item, minlength=60).astype(np.float64)
    share = counts**power / (counts**power).sum()
    np.testing.assert_allclose(module.data.log_q.numpy(), np.log(share), atol=1e-5)

    def spy(*arguments: Any) -> torch.Tensor:
        log_q = arguments[6]
        assert log_q is not None
        assert len(log_q[1]) == 50
        return sampled_softmax(*arguments)

    monkeypatch.setattr(module_two, "sampled_softmax", spy)
    batch = next(iter(TowerBatches(dataset.events, everything(dataset), TINY, 0)))
    assert torch.isfinite(module.training_step(batch, 0))
    torch.manual_seed(0)
    places = torch.searchsorted(module.data.cumulative, torch.rand(200_000, dtype=torch.float64))
    drawn = np.bincount(module.data.trainable_rows[places].numpy(), minlength=60)
    np.testing.assert_allclose(drawn / drawn.sum(), share, atol=2e-3)


def test_a_step_of_stage_two_reaches_every_parameter(dataset: Dataset, text_vectors: FloatArray) -> None:
    module = stage_two(dataset, text_vectors, TINY)
    for batch in TowerBatches(dataset.events, everything(dataset), TINY, 0):
        module.training_step(batch, 0).backward()  # type: ignore[no-untyped-call]
    for name, parameter in module.towers.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
    assert all(parameter.grad is None for parameter in module.average.parameters())


@pytest.mark.parametrize("limit", [0, 10])
def test_the_average_reaches_back_so_many_epochs(
    dataset: Dataset, text_vectors: FloatArray, limit: int
) -> None:
    config = replace(TINY, average=2.0, windows_per_epoch=limit)
    module = stage_two(dataset, text_vectors, config)
    batches = list(TowerBatches(dataset.events, everything(dataset), config, 0))
    assert len(batches) == 3 if limit else len(batches) > 3
    weight, kept = next(module.towers.parameters()), next(module.trained.parameters())
    for value in (0.0, 1.0):
        with torch.no_grad():
            weight.fill_(value)
        module.on_train_batch_end(None, batches[0], 0)
    torch.testing.assert_close(kept, torch.full_like(kept, 0.5 / len(batches)))


def test_validation_and_result_are_the_averages(dataset: Dataset, text_vectors: FloatArray) -> None:
    module = stage_two(dataset, text_vectors, TINY)
    with torch.no_grad():
        for parameter in module.towers.parameters():
            parameter.zero_()
    assert isinstance(module.trained, Towers)
    assert module.trained is not module.towers
    catalogue = module.trained.catalogue(module.data.whitened)
    assert np.array_equal(catalogue.numpy(), module.trained.item_vectors(text_vectors))
    assert catalogue.abs().max() > 0
    module.valid = queries([0, 1], [3, 20], [[4], [5, 6]])
    module.log = (logged := Logged())  # type: ignore[assignment]
    module.validation_step(torch.zeros(1), 0)
    recalls = tower_recall(module.trained, catalogue, dataset.events, module.valid, True, 10)
    assert logged.values == {"valid_recall": float(recalls.numpy().mean())}


def test_each_distinct_row_goes_through_the_item_tower_once(
    dataset: Dataset, text_vectors: FloatArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = stage_two(dataset, text_vectors, TINY)
    seen: list[torch.Tensor] = []
    original = ItemTower.forward

    def spy(self: ItemTower, text: torch.Tensor, rows: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        seen.append(rows)
        return original(self, text, rows, keep)

    monkeypatch.setattr(ItemTower, "forward", spy)
    module.training_step(next(iter(TowerBatches(dataset.events, everything(dataset), TINY, 0))), 0)
    assert len(seen) == 1
    assert len(seen[0]) == len(set(seen[0].tolist()))


def test_id_dropout_of_nearly_everything_trains_no_id(dataset: Dataset, text_vectors: FloatArray) -> None:
    module = stage_two(dataset, text_vectors, replace(TINY, id_dropout=0.9999999))
    batch = next(iter(TowerBatches(dataset.events, everything(dataset), TINY, 0)))
    module.training_step(batch, 0).backward()  # type: ignore[no-untyped-call]
    residual = module.towers.item_tower.residual
    assert residual is not None
    assert residual.weight.grad is not None
    assert residual.weight.grad.abs().sum() == 0


@pytest.mark.parametrize("layers", [1, 2])
def test_the_newest_position_alone_is_that_of_all(layers: int) -> None:
    torch.manual_seed(layers)
    encoder = UserEncoder(dim=8, layers=layers, heads=2, max_length=5, kinds=2, dropout=0.0).eval()
    items, kinds = torch.randn(4, 5, 8), torch.randint(0, 2, (4, 5))
    times = torch.randint(0, 10**6, (4, 5)).sort(dim=1).values
    valid = torch.arange(5) >= torch.tensor([0, 2, 4, 5])[:, None]  # the last one has no event at all
    whole = encoder(items, kinds, times, valid)[:, -1]
    torch.testing.assert_close(encoder.newest(items, kinds, times, valid), whole, atol=1e-6, rtol=1e-5)
