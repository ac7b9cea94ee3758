"""Stage one as a Lightning module: the text encoder learns to predict the text of the next chosen item."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, IterableDataset

from conf.encoders import Precision, TextEncoderConfig
from encoders.contexts import ContextBatch, ContextSampler, ContextTables
from encoders.device import upload
from encoders.factors.affinity import context_loss
from encoders.memory import free_memory
from encoders.text.compiled_text_encoder import CompiledTextEncoder
from encoders.text.item_texts import ItemTexts
from encoders.text.precision import Precisions
from encoders.text.text_encoder import TextEncoder
from encoders.text.tokens import TokenArray, pad
from encoders.towers.item_tower import whitening
from encoders.towers.towers import best_items, best_rows
from encoders.training.processes import gather_shards, joint_mean, rank_and_size, shard
from features.data.dataset import Events, FloatArray, IntArray
from features.data.splits import Queries, ragged_ranges

VALIDATION_K = 10
VALIDATION_ITEMS = 20_000
VALIDATION_QUERIES = 4_000
MINED = 64
"""Nearest texts from which hard negatives are drawn."""
GROUP = 96
"""Texts of similar length per forward pass, few enough for a CPU's caches."""
GPU_GROUP = 512
"""The same on a GPU, where padding costs less than launching another pass."""

ACTIVATIONS = 68
"""Bytes that a layer keeps for each number of a token's state, in fp32 (twice what Korthikanti et al. 2022,
arXiv:2205.05198, count in 16 bits)."""


class ContextBatches(IterableDataset[ContextBatch]):
    """One chunk of training, fixed by its seed."""

    def __init__(self, sampler: ContextSampler, count: int, pieces: int, seed: int) -> None:
        """Store the arguments of `ContextSampler.batches`."""
        self.sampler, self.count, self.pieces, self.seed = sampler, count, pieces, seed

    def __iter__(self) -> Iterator[ContextBatch]:
        return self.sampler.batches(self.count, self.pieces, self.seed)


def _head(vectors: FloatArray, width: int | None) -> nn.Linear:
    """Return a linear layer that whitens the catalogue's vectors, [items, dim].

    Sentence vectors lie in a narrow cone, in which the items of one shop differ by small components. The
    whitening scales these up before fine-tuning starts.
    """
    mean, matrix = whitening(vectors, width=width)
    head = nn.Linear(*matrix.shape)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(matrix.T))
        head.bias.copy_(torch.from_numpy(-mean @ matrix))
    return head


class StageOne(pl.LightningModule):
    """Fine-tunes the text encoder; one epoch is `validate_every` optimiser steps."""

    unused_weights = True
    """Such as the pooler of a BERT with mean pooling."""

    def __init__(
        self,
        encoder: TextEncoder,
        config: TextEncoderConfig,
        precision: Precisions,
        sampler: ContextSampler,
        texts: ItemTexts,
        events: Events,
        valid: Queries,
        seed: int,
    ) -> None:
        """Take the encoder, the contexts, each item's text and the validation queries; `begin` comes next."""
        super().__init__()
        self.automatic_optimization = False  # adversarial training needs two backward passes per step
        self.encoder = encoder
        self.settings = config
        self.precision = precision
        self.sampler = sampler
        self.texts = texts
        self.events = events
        self.seed = seed
        rng = np.random.default_rng(seed)
        some = rng.permutation(len(valid))[:VALIDATION_QUERIES]
        self.valid = valid.select(np.sort(some))
        self.pool = self._validation_pool(rng)
        self.mined: IntArray | None = None
        self._on_device: ContextTables | None = None
        self.head: nn.Linear | None = None

    def begin(self, vectors: FloatArray) -> float:
        """Start the head from vectors of the untouched encoder, [pool, dim]; return their recall@10."""
        if self.settings.projection != 0:
            self.head = _head(vectors, self.settings.projection)
        return self.text_recall(vectors)

    def _validation_pool(self, rng: np.random.Generator) -> IntArray:
        """Rows that validation ranks: the catalogue, or a seeded part of a large one with every target."""
        items = len(self.texts)
        if items <= VALIDATION_ITEMS:
            return np.arange(items, dtype=np.int32)
        drawn = rng.permutation(items)[:VALIDATION_ITEMS].astype(np.int32)
        return np.union1d(drawn, self.valid.targets).astype(np.int32)

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's own union type
        """AdamW with a linear warm-up and decay."""
        config = self.settings
        head = [] if self.head is None else [*self.head.parameters()]
        trained = [p for p in self.encoder.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [{"params": trained}]
        if head:
            groups.append({"params": head, "lr": config.head_learning_rate})
        optimizer = torch.optim.AdamW(
            groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        warmup = max(1, int(config.max_steps * config.warmup_fraction))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return max(0.0, (config.max_steps - step) / max(1, config.max_steps - warmup))

        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, factor)]

    def train_dataloader(self) -> DataLoader[ContextBatch]:
        """Return the contexts of this chunk; called anew each epoch, so a resumed run gets the same data."""
        config = self.settings
        steps = min(config.validate_every, config.max_steps - self.current_epoch * config.validate_every)
        batches = ContextBatches(
            self.sampler,
            max(steps, 1) * config.accumulate,
            config.batch_size,
            self._draw_seed(),
        )
        return DataLoader(batches, batch_size=None)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:  # noqa: ANN401
        """Return the contexts unchanged: they hold rows, and only vectors go to the device."""
        return batch

    def on_train_epoch_start(self) -> None:
        """Seed the random choices by the chunk and mine hard negatives with the weights of its start."""
        self.rng = np.random.default_rng(self._draw_seed())
        if self.settings.hard_negatives:
            vectors = upload(self._embed(np.arange(len(self.texts), dtype=np.int32)), self.device)
            asked = upload(shard(np.arange(len(vectors))), self.device)
            blocks = [best_rows(vectors[part], vectors, MINED + 1) for part in torch.split(asked, 1024)]
            # Gathered, because rounding could make processes mine different items.
            self.mined = gather_shards(torch.cat(blocks), len(vectors)).cpu().numpy()[:, 1:].astype(np.int32)

    def on_train_batch_start(self, batch: ContextBatch, batch_idx: int) -> None:
        """Seed dropout of layers and tokens by the chunk; a resumed run's loader draws a seed before it."""
        if batch_idx == 0:
            torch.manual_seed(
                self._draw_seed() + 1_000_000_007 * rank_and_size()[0]
            )  # different in each process

    def _draw_seed(self) -> int:
        """Return the seed of this chunk's random choices."""
        return self.seed * 100_003 + self.current_epoch

    def _tables(self) -> ContextTables:
        """Return the loss's lookup tables on this module's device."""
        if self._on_device is None or self._on_device.log_q.device != self.device:
            self._on_device = self.sampler.tables(self.device)
        return self._on_device

    @cached_property
    def _recompute(self) -> bool:
        """Whether activations are recomputed in the backward pass (gradient checkpointing)."""
        if self.settings.recompute is not None:
            return self.settings.recompute
        config = self.encoder.backbone.config
        texts = self.settings.batch_size * self.settings.piece * (1 + self.settings.hard_negatives)
        tokens = min(texts / rank_and_size()[1], len(self.texts)) * float(self.texts.whole.lengths.mean())
        size = tokens * ACTIVATIONS * config.num_hidden_layers * config.hidden_size
        return bool(size > free_memory(self.device) / 4)

    def _encode(self, texts: TokenArray) -> Tensor:
        """Return unit vectors of texts sorted roughly by length, [texts, dim], encoded in groups."""
        fill = self.encoder.tokenizer.pad_token_id or 0
        flat, offsets = upload(texts.flat, self.device), upload(texts.offsets, self.device)
        bf16 = self.precision.training is Precision.bf16
        size, parts = GROUP if self.device.type == "cpu" else GPU_GROUP, []
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            for group in np.array_split(np.arange(len(texts)), -(-len(texts) // size)):
                start, stop = int(group[0]), int(group[-1]) + 1
                width = int(texts.lengths[start:stop].max())
                ids, mask = pad(flat, offsets[start : stop + 1], width, fill)
                if self.settings.token_dropout > 0:
                    keep = torch.rand(mask.shape, device=self.device) >= self.settings.token_dropout
                    keep[:, 0] = True  # the classification token is never dropped
                    mask = mask * keep
                if self._recompute and torch.is_grad_enabled():
                    # Memory for one group's activations, whatever the size of the batch (Chen et al. 2016,
                    # arXiv:1604.06174).
                    vectors = checkpoint(self.encoder, ids, mask, use_reentrant=False)
                else:
                    vectors = self.encoder(ids, mask)
                parts.append(vectors.float())
        return torch.cat(parts)

    def _candidate_vectors(self, candidates: IntArray) -> Tensor:
        """Return unit vectors that the loss compares, [candidates, dim]; each process encodes its shard."""
        texts = self.texts.draw(candidates, self.settings.field_dropout, self.rng)
        order = np.argsort(texts.lengths, kind="stable")
        vectors = self._encode(texts.select(shard(order)))
        if self.head is not None:
            vectors = nn.functional.normalize(self.head(vectors), dim=-1)
        back = upload(np.argsort(order, kind="stable"), self.device)
        return gather_shards(vectors, len(order))[back]

    def _loss(self, batch: ContextBatch) -> Tensor:
        """Return this process's part of the loss of a batch; the mean over the processes is the loss."""
        config = self.settings
        candidates = batch.rows()
        if self.mined is not None:
            picks = self.rng.integers(0, self.mined.shape[1], size=(len(candidates), config.hard_negatives))
            mined = np.take_along_axis(self.mined[candidates], picks, axis=1)
            candidates = np.union1d(candidates, mined).astype(np.int32)
        # Every distinct item of the batch is encoded once and is a candidate for every context.
        vectors = self._candidate_vectors(candidates)
        contexts = batch.part(*rank_and_size()).indexed(candidates, self.device)
        return joint_mean(context_loss(vectors, contexts, self._tables(), config), contexts.weight)

    def _adversarial_backward(self, batch: ContextBatch) -> None:
        """Add the gradient at worst-case word embeddings (FGM; Miyato et al. 2017, arXiv:1605.07725)."""
        embeddings: Any = self.encoder.backbone.get_input_embeddings()
        weight: nn.Parameter = embeddings.weight
        if weight.grad is None:
            return
        norm = weight.grad.norm()
        # A gradient of norm 0 has no direction: nothing is added. An `if` would synchronise with the device.
        known = torch.isfinite(norm) & (norm > 0)
        shift = self.settings.adversarial_epsilon * weight.grad / norm
        original = weight.data.clone()
        weight.data.add_(torch.where(known, shift, torch.zeros_like(shift)))
        self.manual_backward(self._loss(batch) * known / self.settings.accumulate)
        weight.data.copy_(original)  # exact, unlike subtracting the shift

    def training_step(self, batch: ContextBatch, index: int) -> None:
        """One forward and backward pass; the optimiser steps every `accumulate` passes."""
        config = self.settings
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        loss = self._loss(batch)
        self.manual_backward(loss / config.accumulate)
        if config.adversarial_epsilon > 0:
            self._adversarial_backward(batch)
        if (index + 1) % config.accumulate == 0:
            self.clip_gradients(optimizer, gradient_clip_val=config.clip_norm, gradient_clip_algorithm="norm")  # type: ignore[arg-type]
            optimizer.step()  # type: ignore[union-attr]
            scheduler.step()  # type: ignore[union-attr]
            optimizer.zero_grad()  # type: ignore[union-attr]
        self.log("loss", loss.detach(), prog_bar=True, on_step=True, on_epoch=False, sync_dist=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return one pass; the work is done at the end of it."""
        return DataLoader(torch.zeros(1), batch_size=None)  # type: ignore[arg-type]

    def validation_step(self, _batch: Tensor, _index: int) -> None:
        """Log recall@10 of the text vectors alone: a history's mean against the catalogue."""
        self.log("valid_recall", self.text_recall(self._embed(self.pool)), prog_bar=True)

    def _embed(self, rows: IntArray) -> FloatArray:
        """Return unit vectors of items with the current weights, [rows, dim]; each process encodes its shard.

        Equal texts are encoded once.
        """
        _, first, inverse = np.unique(self.sampler.text_ids[rows], return_index=True, return_inverse=True)
        tokens = self.texts.whole.select(shard(rows[first]))
        own = CompiledTextEncoder(self.encoder, self.precision.embedding).embed_tokens(tokens)
        vectors: FloatArray = gather_shards(upload(own, self.device), len(first)).cpu().numpy()
        return vectors[inverse]

    def text_recall(self, vectors: FloatArray) -> float:
        """Return mean recall@10 where a query is the mean of its last five items, vectors [pool, dim]."""
        queries, events = self.valid, self.events
        position = np.full(len(self.texts), -1, dtype=np.int64)
        position[self.pool] = np.arange(len(self.pool))
        start = np.maximum(events.offsets[queries.user], queries.end - 5)
        sizes = queries.end - start
        owner = np.repeat(np.arange(len(queries)), sizes)
        rows = position[events.item[ragged_ranges(start, sizes)]]
        owner, rows = owner[rows >= 0], rows[rows >= 0]
        profiles = np.zeros((len(queries), vectors.shape[1]), dtype=np.float32)
        np.add.at(profiles, owner, vectors[rows])
        items = upload(vectors, self.device)
        # The history is excluded, as it would fill the list.
        blocks = []
        for begin in range(0, len(queries), 512):
            inside = (owner >= begin) & (owner < begin + 512)
            exclude = ((owner[inside] - begin).astype(np.int32), rows[inside].astype(np.int32))
            asked = upload(profiles[begin : begin + 512], self.device)
            blocks.append(best_items(asked, items, VALIDATION_K, exclude))
        top = np.concatenate(blocks)
        size = np.diff(queries.target_offsets)
        owners = np.repeat(np.arange(len(queries)), size)
        listed = np.where(top >= 0, self.pool[top], -1)[owners]
        hit = (listed == queries.targets[:, None]).any(axis=1)
        return float((np.bincount(owners, weights=hit, minlength=len(queries)) / size).mean())
