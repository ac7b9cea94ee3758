from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conf.schema import RankerConfig
from encoders.training.fitting import fit
from features.data.dataset import FloatArray
from ranking.scoring.ranker import KNOTS, RANKER_CONFIG, QuantileScale, Ranker
from ranking.training.example_tensors import ExampleTensors, QueryBatches
from ranking.training.examples import Examples, ndcg_of_scores
from ranking.training.ranker_module import (  # fmt: skip
    RankerModule,
    calibrate,
    listwise_loss,
    pointwise_loss,
    probability_quality,
    raw_logits,
)

CPU = torch.device("cpu")
NAMES = ["signal", "noise", "constant"]


def examples(queries: int = 200, candidates: int = 12, seed: int = 0) -> Examples:
    """One candidate per query is chosen: mostly the one whose signal is largest; half of those are bought."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(queries, candidates, 3)).astype(np.float32)
    features[..., 2] = 7.0
    noisy = features[..., 0] + 0.5 * rng.normal(size=(queries, candidates))
    chosen = np.arange(candidates) == noisy.argmax(axis=1)[:, None]
    bought = chosen & (rng.random(queries) < 0.5)[:, None]
    real = np.ones(chosen.shape, dtype=bool)
    return Examples(
        features, real, chosen, bought, np.zeros(chosen.shape, np.float32), np.ones(queries, np.float32),
        np.ones(queries, np.int32),
    )  # fmt: skip


def untrained(seed: int = 0, dropout: float = 0.0) -> Ranker:
    torch.manual_seed(seed)
    ranker = Ranker(NAMES, [8, 4], dropout)
    ranker.fit_scale(examples().features.reshape(-1, 3))
    return ranker.eval()


def test_the_quantile_scale_by_hand() -> None:
    scale = QuantileScale(1)
    scale.fit(np.linspace(0, 62, 63, dtype=np.float32)[:, None])
    # 32 knots at 0, 2, ..., 62 spread evenly over -1..1.
    values = torch.tensor([[0.0], [62.0], [31.0], [3.0], [-100.0], [999.0]])
    expected = [-1.0, 1.0, 0.0, 2 * 1.5 / 31 - 1, -1.0, 1.0]
    assert scale(values).ravel().tolist() == pytest.approx(expected, abs=1e-3)


def test_the_quantile_scale_keeps_order_and_bounds_whatever_the_tail() -> None:
    rng = np.random.default_rng(0)
    sample = np.exp(4 * rng.normal(size=(500, 2))).astype(np.float32)
    scale = QuantileScale(2)
    scale.fit(sample)
    points = torch.from_numpy(np.sort(np.exp(5 * rng.normal(size=(300, 2))), axis=0).astype(np.float32))
    scaled = scale(points)
    assert (scaled.diff(dim=0) >= 0).all()
    assert scaled.abs().max() <= 1.0
    assert scaled.std() > 0.3, "half of a long tail is not squeezed into one point"


@pytest.mark.parametrize("value", [0.0, 5.0, -1e6])
def test_a_constant_feature_is_finite(value: float) -> None:
    scale = QuantileScale(1)
    scale.fit(np.full((40, 1), value, np.float32))
    assert torch.isfinite(scale(torch.tensor([[value], [value + 1], [value - 1]]))).all()
    assert (scale.knots.diff(dim=1) > 0).all()
    assert scale.knots.shape == (1, KNOTS)


def test_a_candidates_score_does_not_depend_on_the_others() -> None:
    ranker, features = untrained(), examples(6, 9).features
    scores, probabilities = ranker.score(features)
    assert scores.shape == (6, 9)
    assert probabilities.shape == (6, 9, 2)
    for query in range(6):
        for place in (0, 4, 8):
            alone, alone_p = ranker.score(features[query : query + 1, place : place + 1])
            assert alone[0, 0] == pytest.approx(scores[query, place], abs=1e-6)
            assert alone_p[0, 0].tolist() == pytest.approx(probabilities[query, place].tolist(), abs=1e-6)
    order = np.random.default_rng(0).permutation(9)
    np.testing.assert_allclose(ranker.score(features[:, order])[0], scores[:, order], atol=1e-6)


def test_a_saved_ranker_scores_the_same(tmp_path: Path) -> None:
    ranker = untrained(dropout=0.3)
    ranker.calibration.copy_(torch.tensor([[2.0, -1.0], [0.5, 3.0]]))
    ranker.save(tmp_path)
    loaded = Ranker.load(tmp_path)
    assert loaded.features == NAMES
    assert loaded.hidden == [8, 4]
    assert not loaded.training
    features = examples(5).features
    for before, after in zip(ranker.score(features), loaded.score(features), strict=True):
        assert np.array_equal(before, after)


def test_probabilities_are_platt_scaled_logits() -> None:
    ranker = untrained()
    ranker.calibration.copy_(torch.tensor([[2.0, -1.0], [0.5, 3.0]]))
    logits = np.array([[9.0, 0.5, -6.0]], dtype=np.float32)
    assert ranker.probabilities(logits).tolist() == [[0.5, 0.25]], "a purchase takes a click"


def test_a_purchase_is_never_likelier_than_a_click() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (500, 3)).astype(np.float32)
    for conditional in (True, False):
        ranker = Ranker(NAMES, [8, 4], conditional=conditional).eval()
        click, purchase = ranker.probabilities(logits).T
        assert (click >= purchase).all()
        assert purchase.max() > 0.5


def test_a_ranker_saved_with_a_purchase_by_itself_keeps_its_purchases(tmp_path: Path) -> None:
    untrained().save(tmp_path)
    shape = json.loads((tmp_path / RANKER_CONFIG).read_text())
    del shape["conditional"]
    (tmp_path / RANKER_CONFIG).write_text(json.dumps(shape))
    logits = np.array([[0.0, -1.0, 1.0], [0.0, 1.0, -1.0]], dtype=np.float32)
    found = Ranker.load(tmp_path).probabilities(logits)
    np.testing.assert_allclose(found[:, 1], 1 / (1 + np.exp([-1.0, 1.0])), rtol=1e-6)
    np.testing.assert_allclose(found[:, 0], 1 / (1 + np.exp([-1.0, -1.0])), rtol=1e-6)


def test_the_pointwise_loss_by_hand() -> None:
    click, given = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([0.7, 0.2, -0.4])
    chosen, bought = torch.tensor([True, False, True]), torch.tensor([True, False, False])
    p, q = click.sigmoid(), (click.sigmoid() * given.sigmoid())
    expected = [
        -(p[0] * q[0]).log() / 2,
        -((1 - p[1]) * (1 - q[1])).log() / 2,
        -(p[2] * (1 - q[2])).log() / 2,
    ]
    found = pointwise_loss(click, given, chosen, bought)
    np.testing.assert_allclose(found, torch.stack(expected), rtol=1e-5)
    extreme = torch.tensor([40.0, -90.0], requires_grad=True)
    pointwise_loss(extreme, extreme, chosen[1:], bought[1:]).sum().backward()  # type: ignore[no-untyped-call]
    assert extreme.grad is not None
    assert bool(extreme.grad.isfinite().all())


def test_the_listwise_loss_by_hand() -> None:
    scores = torch.tensor([[1.0, 2.0, 50.0, 50.0], [0.0, 2.0, 1.0, 3.0], [3.0, 1.0, 2.0, 0.0]])
    real = torch.tensor([[True, True, False, False], [True] * 4, [True] * 4])
    chosen = torch.tensor([[True, False, True, False], [True, True, False, False], [False] * 4])
    # First: 1 against 2, padding does not count. Second: 0 and 2, each against 1 and 3. Third: none.
    others = math.exp(1) + math.exp(3)
    second = (math.log(1 + others) + math.log(1 + others / math.exp(2))) / 2
    expected = (math.log(1 + math.e) + math.sqrt(2) * second) / (1 + math.sqrt(2))
    assert listwise_loss(scores, chosen, real).item() == pytest.approx(expected, abs=1e-5)


def test_one_chosen_item_does_not_push_another_down() -> None:
    scores = torch.tensor([[5.0, 1.0, 0.0]], requires_grad=True)
    loss = listwise_loss(scores, torch.tensor([[True, True, False]]), torch.ones(1, 3, dtype=torch.bool))
    loss.backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert (scores.grad[0, :2] < 0).all()


def test_a_list_of_nothing_but_chosen_items_teaches_nothing() -> None:
    scores = torch.randn(2, 3, requires_grad=True)
    chosen = torch.tensor([[True, True, True], [True, False, True]])
    real = torch.tensor([[True, True, True], [True, False, True]])
    loss = listwise_loss(scores, chosen, real)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert scores.grad.abs().sum() == 0


def test_a_batch_without_any_target_costs_nothing_and_has_a_gradient() -> None:
    scores = torch.randn(2, 3, requires_grad=True)
    loss = listwise_loss(scores, torch.zeros(2, 3, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert scores.grad.abs().sum() == 0


def test_an_epoch_asks_every_query_once_in_a_seeded_order() -> None:
    def order(seed: int) -> list[int]:
        numbered = examples(23)
        numbered.negative_share[:] = np.exp(-np.arange(23) / 2, dtype=np.float32)
        batches = list(QueryBatches(ExampleTensors.of(numbered), 5, seed, CPU))
        assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
        return (torch.cat([batch.shift for batch in batches]) * -2).round().int().tolist()

    assert sorted(order(1)) == list(range(23))
    assert order(1) == order(1) != order(2)


def test_thinned_negatives_do_not_bend_the_probabilities() -> None:
    share = np.array([0.5, 0.1, 1.0], np.float32)
    thin = replace(examples(3, 4), negative_share=share)
    module = RankerModule(untrained(), RankerConfig(pointwise_weight=1.0), thin, None, 0)
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    loss = module.training_step(module.examples, 0)
    logits = torch.from_numpy(raw_logits(module.ranker, thin.features))
    # Keeping a share s of the negatives divides the odds of being chosen by s.
    odds = logits[..., 1].exp() / torch.from_numpy(share)[:, None]
    labels = torch.from_numpy(np.stack([thin.chosen, thin.bought], -1))
    click = odds / (1 + odds)
    p = torch.stack([click, click * logits[..., 2].sigmoid()], -1)
    expected = -torch.where(labels, p, 1 - p).log().mean()
    order = listwise_loss(logits[..., 0], torch.from_numpy(thin.chosen), torch.from_numpy(thin.real))
    assert loss.item() == pytest.approx((expected + order).item(), rel=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ranker, float]:
    module = RankerModule(
        untrained(), RankerConfig(batch_size=20, learning_rate=1e-2), examples(seed=1), examples(seed=2), 0
    )
    result = fit(
        module,
        tmp_path_factory.mktemp("ranker"),
        max_epochs=8,
        patience=3,
        monitor="valid_ndcg",
        device=CPU,
        clip_norm=5.0,
    )
    return module.trained, result.best


def test_training_finds_the_signal(trained: tuple[Ranker, float]) -> None:
    ranker, best = trained
    fresh = examples(seed=3)
    hits = raw_logits(ranker, fresh.features)[..., 0].argmax(1) == fresh.chosen.argmax(1)
    oracle = fresh.features[..., 0].argmax(1) == fresh.chosen.argmax(1)
    assert hits.mean() > 0.9 * oracle.mean() > 0.4
    assert best > 0.75


def test_raw_logits_are_those_of_the_network_without_dropout(trained: tuple[Ranker, float]) -> None:
    ranker, _ = trained
    features = examples(30).features
    ranker.train()
    logits = raw_logits(ranker, features)
    assert ranker.training
    with torch.no_grad():
        expected = ranker.eval()(torch.from_numpy(features))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_calibration_makes_probabilities_honest(trained: tuple[Ranker, float]) -> None:
    ranker, _ = trained
    ranker.calibration.copy_(torch.tensor([[3.0, 2.0], [3.0, 2.0]]))
    fresh = examples(600, seed=4)
    before = probability_quality(ranker, fresh)
    calibrate(ranker, examples(600, seed=5))
    after = probability_quality(ranker, fresh)
    for task in ("click", "purchase"):
        assert after[task]["calibration_error"] < 0.02 < before[task]["calibration_error"]
        assert after[task]["log_loss"] < before[task]["log_loss"]
        # Each logit's order is not touched; a purchase's probability is a product of two.
        apart = 1e-3 if task == "click" else 0.02
        assert after[task]["auc"] == pytest.approx(before[task]["auc"], abs=apart)
    assert after["click"]["base_rate"] == pytest.approx(1 / 12)


def test_calibration_without_a_purchase_leaves_that_task_alone() -> None:
    ranker = untrained()
    none = examples(50)
    none = Examples(
        none.features,
        none.real,
        none.chosen,
        np.zeros_like(none.bought),
        none.fused,
        none.negative_share,
        none.targets,
    )
    calibrate(ranker, none)
    assert ranker.calibration[1].tolist() == [1.0, 0.0]
    assert ranker.calibration[0].tolist() != [1.0, 0.0]
    assert list(probability_quality(ranker, none)) == ["click"]


def test_probability_quality_by_hand() -> None:
    ranker = untrained()
    four = examples(1, 4)
    chosen = np.array([[True, False, True, False]])
    made = Examples(four.features, four.real, chosen, chosen, four.fused, four.negative_share, four.targets)
    probabilities = np.array([[[0.9, 0.2], [0.6, 0.2], [0.5, 0.2], [0.2, 0.2]]], dtype=np.float32)

    class Fixed(Ranker):
        def probabilities(self, logits: FloatArray) -> FloatArray:
            return probabilities

    ranker.__class__ = Fixed
    quality = probability_quality(ranker, made, bins=2)
    # Of four pairs of a chosen and another candidate, three are in the right order.
    assert quality["click"]["auc"] == pytest.approx(0.75)
    assert quality["click"]["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.5, 0.8]).mean(), rel=1e-5)
    # Halves (.2, .5) and (.6, .9): predicted .35 and .75, observed .5 and .5.
    assert quality["click"]["calibration_error"] == pytest.approx((0.15 + 0.25) / 2, abs=1e-6)
    assert quality["purchase"]["auc"] == pytest.approx(0.5), "equal probabilities tell nothing apart"


class CutOff(RankerModule):
    """Fails in the middle of an epoch."""

    fail_in = -1

    def training_step(self, batch: ExampleTensors, _index: int) -> torch.Tensor:
        if self.current_epoch == self.fail_in and _index == 2:
            raise InterruptedError
        return super().training_step(batch, _index)


def averaging(average: float, fail_in: int = -1) -> CutOff:
    config = RankerConfig(batch_size=40, learning_rate=1e-2, average=average)
    module = CutOff(untrained(dropout=0.2), config, examples(190, seed=1), examples(seed=2), 0)
    module.fail_in = fail_in
    return module


def fitted(module: RankerModule, folder: Path) -> float:
    return fit(module, folder, max_epochs=3, patience=3, monitor="valid_ndcg", device=CPU, clip_norm=5.0).best


@pytest.mark.parametrize("fail_in", [0, 1, 2])
def test_a_run_cut_off_goes_on_to_exactly_the_same_weights(tmp_path: Path, fail_in: int) -> None:
    whole = averaging(1.0)
    best = fitted(whole, tmp_path / "whole")
    with pytest.raises(InterruptedError):
        fitted(averaging(1.0, fail_in), tmp_path / "cut")
    resumed = averaging(1.0)
    assert fitted(resumed, tmp_path / "cut") == best
    for name, values in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], values), name


@pytest.mark.parametrize("average", [0.0, 2.0])
def test_the_average_is_validated_and_kept(tmp_path: Path, average: float) -> None:
    module = averaging(average)
    best = fitted(module, tmp_path)
    valid = module.valid_examples
    assert valid is not None
    assert best == pytest.approx(
        float(ndcg_of_scores(valid, raw_logits(module.trained, valid.features)[..., 0]).mean()), abs=1e-6
    )
    pairs = list(zip(module.ranker.parameters(), module.trained.parameters(), strict=True))
    assert all(torch.equal(own, kept) for own, kept in pairs) == (average == 0)


def test_the_average_reaches_back_so_many_epochs() -> None:
    module = averaging(2.0)  # five steps of at most 40 of 190 queries; two epochs are ten
    weight, kept = next(module.ranker.parameters()), next(module.trained.parameters())
    for value in (0.0, 1.0):
        with torch.no_grad():
            weight.fill_(value)
        module.on_train_batch_end(None, module.examples, 0)
    torch.testing.assert_close(kept, torch.full_like(kept, 0.1))
