"""Stage two with the item table and the text vectors divided among its processes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from encoders.towers.sequences import recent
from encoders.towers.towers import Towers
from encoders.training.processes import gather_shards, shard
from encoders.training.sharding import (  # fmt: skip
    Block,
    ShardedEmbedding,
    best_of_blocks,
    clip_sharded_gradients,
    divide_checkpoint,
    join_checkpoint,
    look_up,
)
from encoders.training.stage_two import (  # fmt: skip
    VALIDATION_K,
    VALIDATION_QUERIES,
    VALIDATION_SCORES,
    StageTwo,
    recall_of_lists,
    seen_pairs,
)
from features.data.splits import Queries

TABLE = "item_tower.residual.weight"
"""The divided table among the weights of the towers."""


class ShardedStageTwo(StageTwo):
    """Trains what `StageTwo` trains; each process holds the text vectors and weights of a block of items.

    Before and after a fit, and in its checkpoints, the table is whole, so that any number of processes can
    continue.
    """

    block: Block | None = None

    def configure_model(self) -> None:
        """Divide the tables, before anything is on the device."""
        if self.block is None:
            self.divide(self.trainer.strategy.root_device)

    def divide(self, device: torch.device) -> None:
        """Keep this process's block of each table; called by all processes."""
        self._whole_text = self.data.whitened
        self.block = block = Block.of(len(self._whole_text), device)
        self.data = replace(self.data, whitened=block.cut(self._whole_text))
        self._whole: list[tuple[Towers, nn.Embedding]] = []
        for towers in (self.towers, self.trained):
            if towers.item_tower.residual is not None:
                self._whole.append((towers, towers.item_tower.residual))
                # It looks up rows as an embedding does.
                towers.item_tower.residual = ShardedEmbedding(towers.item_tower.residual, block)  # type: ignore[assignment]
        self._tables = [f"{part}.{TABLE}" for part in ("towers", "average.module")] if self._whole else []
        self._ddp_params_and_buffers_to_ignore = self._tables  # read by DDP: their gradients are complete
        trained = [name for name, _ in self.towers.named_parameters()]
        self._number = trained.index(TABLE) if self._whole else -1

    def on_fit_end(self) -> None:
        """Make the tables whole; their weights are those of the beginning, which a checkpoint replaces."""
        super().on_fit_end()
        self.data = replace(self.data, whitened=self._whole_text)
        for towers, whole in self._whole:
            towers.item_tower.residual = whole
        self.block = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store whole tables."""
        assert self.block is not None
        join_checkpoint(checkpoint, self._tables, self._number, self.block)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take this process's rows of whole tables."""
        assert self.block is not None
        divide_checkpoint(checkpoint, self._tables, self._number, self.block)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of all gradients, wherever they are."""
        if gradient_clip_val is None:
            return
        weights = dict(self.towers.named_parameters())
        sharded = [weights.pop(TABLE)] if self._whole else []
        clip_sharded_gradients(list(weights.values()), sharded, gradient_clip_val)

    def text_of(self, rows: Tensor) -> Tensor:
        """Return whitened text vectors of rows, [rows, text dim]; called by all processes."""
        assert self.block is not None
        return look_up(self.data.whitened, rows, self.block)

    def validation_step(self, _batch: Tensor, _index: int) -> None:
        """Log the mean recall@10 over the validation queries."""
        assert self.valid is not None
        assert self.block is not None
        catalogue = self._own_vectors()
        size = max(min(VALIDATION_QUERIES, VALIDATION_SCORES // max(self.block.size, 1)), 1)
        numbers = np.arange(len(self.valid))
        blocks = [
            self._recalls(self.valid.select(numbers[begin : begin + size]), catalogue)
            for begin in range(0, len(numbers), size)
        ]
        self.log("valid_recall", float(torch.cat(blocks).cpu().numpy().mean()), prog_bar=True)

    @torch.no_grad()
    def _own_vectors(self) -> Tensor:
        """Return the item vectors of this process's block, [block, dim]."""
        assert self.block is not None
        tower = self.trained.item_tower
        residual = None if tower.residual is None else tower.residual.weight
        return tower.combined(self.data.whitened, residual, tower.seen[self.block.begin : self.block.end])

    @torch.no_grad()
    def _recalls(self, queries: Queries, catalogue: Tensor) -> Tensor:
        """Return the recall@10 of queries, [queries]; called by all processes with the same queries.

        Each encodes its share of the histories, then ranks its block of the catalogue for all of them.
        """
        block, towers, events = self.block, self.trained, self.events
        assert block is not None
        own = queries.select(shard(np.arange(len(queries))))
        past = recent(events, own.user, own.end, towers.max_length, self.data.events).to(catalogue.device)
        items = look_up(catalogue, past.rows.flatten(), block).view(*past.rows.shape, towers.dim)
        vectors = towers.user_encoder.newest(items, past.kinds, past.times, past.valid)
        users = gather_shards(vectors, len(queries))  # [queries, dim]
        scores = users @ catalogue.T  # [queries, block]
        if self.exclude_seen:
            query, item = seen_pairs(events, queries)
            here = (item >= block.begin) & (item < block.end)
            rows = (query[here], item[here] - block.begin)
            scores[tuple(torch.from_numpy(r).to(scores.device).long() for r in rows)] = -torch.inf
        best = scores.topk(min(VALIDATION_K, scores.shape[1]), dim=1)
        found = (best.indices + block.begin).masked_fill(best.values == -torch.inf, -1)
        return recall_of_lists(best_of_blocks(best.values, found, min(VALIDATION_K, block.count)), queries)
