"""Stage one: the loss of a step, what augments it, validation, and several processes."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from conf.encoders import Precision, TextEncoderConfig
from encoders.contexts import ContextBatch
from encoders.text.embedding import embed_texts
from encoders.text.item_texts import ItemTexts
from encoders.text.precision import Precisions
from encoders.text.text_encoder import TextEncoder, load_text_encoder
from encoders.text.tokens import TokenArray
from encoders.towers.item_tower import whitening
from encoders.training.fitting import MONITORED, Fit, fit
from encoders.training.stage_one import StageOne
from features.data.dataset import Dataset, IntArray
from features.data.splits import Queries
from tests.encoders.sampled import sampler_of
from tests.encoders.test_losses import naive_in_batch
from tests.synthetic import make_dataset

SETTINGS = TextEncoderConfig(
    batch_size=8,
    window=3,
    field_dropout=0.0,
    frozen_layers=0,
    precision=Precision.fp32,
    temperature=0.1,
    projection=0,
    max_steps=10,
)

CPU = torch.device("cpu")


def ask(user: list[int], end: list[int], targets: list[int]) -> Queries:
    count = len(user)
    return Queries(
        np.array(user, np.int32),
        np.array(end, np.int64),
        np.zeros(count, np.int64),
        np.arange(count + 1, dtype=np.int64),
        np.array(targets, np.int32),
        np.zeros(count, np.int32),
    )


def module_of(
    dataset: Dataset, encoder: TextEncoder, settings: TextEncoderConfig, valid: Queries | None = None
) -> StageOne:
    texts = dataset.catalogue.texts
    parts = pl.Series([text.split(". ") for text in texts])
    whole = TokenArray.tokenized(encoder.tokenizer, texts, encoder.max_tokens)
    module = StageOne(
        encoder, settings, Precisions(Precision.fp32, Precision.fp32), sampler_of(dataset),
        ItemTexts(encoder, whole, parts, 1000), dataset.events,
        valid or ask([0], [int(dataset.events.offsets[1])], [0]), 0,
    )  # fmt: skip
    module.begin(embed_texts(encoder, [texts[row] for row in module.pool], precision=Precision.fp32))
    module.rng = np.random.default_rng(0)
    return module


def test_a_step_encodes_every_distinct_item_once(
    dataset: Dataset, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(dataset, encoder, SETTINGS)
    read: list[list[int]] = []
    original = TextEncoder.forward

    def spy(self: TextEncoder, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        pairs = zip(input_ids, attention_mask, strict=True)
        read.extend(ids[mask == 1].tolist() for ids, mask in pairs)
        return original(self, input_ids, attention_mask)

    monkeypatch.setattr(TextEncoder, "forward", spy)
    batch = next(module.sampler.batches(1, 32, seed=0))
    with torch.no_grad():
        module._loss(batch)
    rows = batch.rows()
    once = [dataset.catalogue.texts[r] for r in rows]
    assert sorted(read) == sorted(encoder.tokenizer(once)["input_ids"])
    assert len(rows) < (batch.context >= 0).sum(), "the batch repeats items"


@pytest.mark.parametrize("logq", [True, False])
@pytest.mark.parametrize("masking", [True, False])
def test_the_loss_of_a_step_is_the_naive_loop(
    dataset: Dataset, encoder: TextEncoder, logq: bool, masking: bool
) -> None:
    module = module_of(dataset, encoder, replace(SETTINGS, logq=logq, mask_false_negatives=masking))
    batch = next(module.sampler.batches(1, 8, seed=3))
    loss = module._loss(batch).item()
    vectors = torch.from_numpy(embed_texts(encoder, dataset.catalogue.texts, precision=Precision.fp32))
    pool = batch.rows()
    count = len(batch.user)
    hidden = torch.zeros(count, len(pool), dtype=torch.bool)
    if masking:
        hidden = module.sampler.tables(CPU).false_negatives(batch.indexed(pool, CPU))
    hidden |= torch.from_numpy((batch.context[:, :, None] == pool[None, None, :]).any(axis=1))
    means = torch.stack([vectors[[int(i) for i in c if i >= 0]].mean(0) for c in batch.context])
    expected = naive_in_batch(
        torch.nn.functional.normalize(means, dim=-1),
        vectors[pool.tolist()],
        torch.from_numpy(np.searchsorted(pool, batch.positive)),
        0.1,
        torch.from_numpy(module.sampler.log_q[pool]) if logq else None,
        hidden,
        torch.from_numpy(batch.weight),
    )
    assert loss == pytest.approx(expected, rel=1e-4)


def test_gradients_reach_every_layer(dataset: Dataset, encoder: TextEncoder) -> None:
    module = module_of(dataset, encoder, SETTINGS)
    module._loss(next(module.sampler.batches(1, 32, seed=0))).backward()  # type: ignore[no-untyped-call]
    for name, parameter in encoder.named_parameters():
        if "pooler" not in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_gradients_are_the_same_where_activations_are_worked_out_again(
    dataset: Dataset, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoders.training.stage_one.GROUP", 5)  # several groups in a step

    def learnt(recompute: bool) -> tuple[dict[str, torch.Tensor], int]:
        held = 0

        def hold(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal held
            held += tensor.numel()
            return tensor

        module = module_of(dataset, copy.deepcopy(encoder), replace(SETTINGS, recompute=recompute))
        with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
            loss = module._loss(next(module.sampler.batches(1, 16, seed=0)))
        loss.backward()  # type: ignore[no-untyped-call]
        return {n: p.grad for n, p in module.encoder.named_parameters() if p.grad is not None}, held

    (kept, all_held), (again, few_held) = learnt(False), learnt(True)
    assert kept.keys() == again.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient, msg=name)
    assert few_held < all_held / 5


@pytest.mark.parametrize(("projection", "width"), [(None, 32), (8, 8)])
def test_the_head_starts_as_the_whitening_and_learns_at_its_own_rate(
    dataset: Dataset, encoder: TextEncoder, projection: int | None, width: int
) -> None:
    settings = replace(SETTINGS, projection=projection, head_learning_rate=0.25)
    module = module_of(dataset, encoder, settings)
    vectors = embed_texts(encoder, dataset.catalogue.texts)
    mean, matrix = whitening(vectors, width=projection)
    assert module.head is not None
    assert module.head.out_features == width
    whitened = module.head(torch.from_numpy(vectors)).detach().numpy()
    np.testing.assert_allclose(whitened, (vectors - mean) @ matrix, atol=1e-4)
    module._loss(next(module.sampler.batches(1, 8, seed=0))).backward()  # type: ignore[no-untyped-call]
    assert module.head.weight.grad is not None
    assert module.head.weight.grad.abs().sum() > 0
    [optimizer], _ = module.configure_optimizers()
    assert [group["initial_lr"] for group in optimizer.param_groups] == [settings.learning_rate, 0.25]


def test_hard_negatives_are_near_texts_and_join_the_candidates(
    dataset: Dataset, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import encoders.training.stage_one as stage_one

    monkeypatch.setattr(stage_one, "MINED", 2)
    module = module_of(dataset, encoder, replace(SETTINGS, hard_negatives=1))
    module.on_train_epoch_start()
    assert module.mined is not None
    assert module.mined.shape == (60, 2)
    vectors = embed_texts(encoder, dataset.catalogue.texts, precision=Precision.fp32)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    assert np.array_equal(np.sort(module.mined, 1), np.sort(np.argsort(-cosines, 1)[:, :2], 1))
    encoded: list[IntArray] = []
    original = module._candidate_vectors

    def spy(rows: IntArray) -> torch.Tensor:
        encoded.append(rows)
        return original(rows)

    monkeypatch.setattr(module, "_candidate_vectors", spy)
    batch = next(module.sampler.batches(1, 4, seed=0))
    module._loss(batch)
    own = batch.rows()
    extra = set(encoded[0].tolist()) - set(own.tolist())
    assert extra
    assert extra <= set(module.mined[own].ravel().tolist())


def test_adversarial_training_adds_gradient_and_leaves_the_weights_as_they_were(
    dataset: Dataset, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(dataset, encoder, replace(SETTINGS, adversarial_epsilon=0.5))
    monkeypatch.setattr(module, "manual_backward", lambda loss: loss.backward())
    batch = next(module.sampler.batches(1, 8, seed=0))
    module._loss(batch).backward()  # type: ignore[no-untyped-call]
    weight: Any = encoder.backbone.get_input_embeddings().weight
    before, gradient = weight.detach().clone(), weight.grad.clone()
    seen: list[torch.Tensor] = []
    original = module._loss

    def spy(contexts: ContextBatch) -> torch.Tensor:
        seen.append(weight.detach().clone())
        return original(contexts)

    monkeypatch.setattr(module, "_loss", spy)
    module._adversarial_backward(batch)
    assert (seen[0] - before).norm().item() == pytest.approx(0.5, rel=1e-3)
    torch.testing.assert_close((seen[0] - before) / 0.5, gradient / gradient.norm(), atol=1e-4, rtol=1e-3)
    assert torch.equal(weight, before)
    assert not torch.equal(weight.grad, gradient)


def test_token_dropout_hides_words_but_never_the_first_token(
    dataset: Dataset, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(dataset, encoder, replace(SETTINGS, token_dropout=0.6))
    masks: list[torch.Tensor] = []
    original = TextEncoder.forward

    def spy(self: TextEncoder, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        masks.append(attention_mask)
        return original(self, input_ids, attention_mask)

    monkeypatch.setattr(TextEncoder, "forward", spy)
    torch.manual_seed(0)
    texts = module.texts.whole.select(np.arange(30))
    module._encode(texts.select(np.argsort(texts.lengths)))
    whole = torch.arange(texts.lengths.max()) < torch.from_numpy(np.sort(texts.lengths))[:, None]
    assert (masks[0][:, 0] == 1).all()
    assert ((masks[0] == 1) <= (whole == 1)).all(), "padding stays hidden"
    assert 0.25 < masks[0][:, 1:].sum() / whole[:, 1:].sum() < 0.55


def test_text_recall_by_hand(encoder: TextEncoder) -> None:
    names = [f"i{n}" for n in range(14)]
    rows = [("u", "i0", "purchase", 0), ("u", "i1", "purchase", 1), ("v", "i5", "purchase", 0)]
    data = make_dataset(rows, names)
    # u has read i0 and i1 and is nearest to i2, ..., i11; v asks for what is furthest from all it knows.
    module = module_of(data, encoder, SETTINGS, ask([0, 0, 1], [2, 2, 3], [2, 13, 0]))
    angle = np.arange(14) * 0.1
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    assert module.text_recall(vectors) == pytest.approx((1 + 0 + 1) / 3)


def test_own_items_do_not_count_as_found_in_a_small_catalogue(encoder: TextEncoder) -> None:
    data = make_dataset([("u", "a", "purchase", 0)], ["a", "b"])
    module = module_of(data, encoder, SETTINGS, ask([0], [1], [0]))
    assert module.text_recall(np.eye(2, dtype=np.float32)) == 0.0


def test_validation_ranks_a_part_of_a_large_catalogue_with_every_target(
    dataset: Dataset, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import encoders.training.stage_one as stage_one

    monkeypatch.setattr(stage_one, "VALIDATION_ITEMS", 10)
    valid = ask([0, 1, 2], [int(e) for e in dataset.events.offsets[1:4]], [57, 58, 59])
    module = module_of(dataset, encoder, SETTINGS, valid)
    assert {57, 58, 59} <= set(module.pool.tolist())
    assert 10 <= len(module.pool) <= 13
    assert np.array_equal(module.pool, np.unique(module.pool))
    vectors = embed_texts(
        encoder, [dataset.catalogue.texts[r] for r in module.pool], precision=Precision.fp32
    )
    assert 0.0 <= module.text_recall(vectors) <= 1.0


def test_a_chunk_has_its_steps_and_the_last_one_what_is_left(dataset: Dataset, encoder: TextEncoder) -> None:
    module = module_of(dataset, encoder, replace(SETTINGS, max_steps=10, validate_every=4, accumulate=2))
    assert len(list(module.train_dataloader())) == 8
    [optimizer], [schedule] = module.configure_optimizers()
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"] / SETTINGS.learning_rate)
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1.0] + [(10 - s) / 9 for s in range(1, 10)])


def test_two_processes_take_the_steps_of_one(dataset: Dataset, bert: Path, tmp_path: Path) -> None:
    config = TextEncoderConfig(model=str(bert), max_tokens=24)
    settings = replace(SETTINGS, max_steps=2, validate_every=1)

    def fitted(ranks: int) -> tuple[Fit, dict[str, torch.Tensor]]:
        # Without dropout, which every process draws for itself.
        encoder = load_text_encoder(config).eval()
        module = module_of(dataset, encoder, settings)
        result = fit(
            module, tmp_path / str(ranks), max_epochs=2, patience=5, monitor=MONITORED,
            device=torch.device("cpu"), devices=ranks, console=Console(quiet=True),
        )  # fmt: skip
        return result, module.encoder.state_dict()

    untouched = load_text_encoder(config).state_dict()
    (one, expected), (two, weights) = fitted(1), fitted(2)
    assert two.history == pytest.approx(one.history)
    assert len(two.history) == 2
    moved = 0.0
    for name, values in weights.items():
        if name.endswith("key.bias"):
            continue  # attention does not depend on it: its gradient is rounding, which AdamW makes a step of
        torch.testing.assert_close(values, expected[name], rtol=1e-3, atol=2e-6, msg=name)
        moved = max(moved, float((values - untouched[name]).abs().max()))
    assert moved > 1e-5
