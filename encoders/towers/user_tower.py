"""The user tower: a causal transformer over a user's events, one vector per position."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

GAP_BUCKETS = 16
"""Gaps fall into log2 buckets: 0, up to 1, 3, 7, ... minutes; the last holds all beyond 2^14 - 1 minutes."""


def gap_buckets(times: Tensor) -> Tensor:
    """Return the bucket of the gap between each event and the one before it; [batch, length] to the same."""
    gaps = torch.zeros_like(times)
    gaps[:, 1:] = (times[:, 1:] - times[:, :-1]).clamp(min=0)
    minutes = gaps.float() / 60.0
    return torch.log2(1.0 + minutes).ceil().long().clamp(max=GAP_BUCKETS - 1)


class Block(nn.Module):
    """Pre-norm attention and a gated feed-forward layer."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        """Build one block."""
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 4 * dim)
        self.down = nn.Linear(2 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def newest(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return the last position of `forward`'s result, [batch, 1, dim], without computing the others."""
        batch, length, dim = states.shape
        normed = self.attention_norm(states)
        weight, bias = self.qkv.weight, self.qkv.bias
        query = nn.functional.linear(normed[:, -1:], weight[:dim], bias[:dim])
        both = nn.functional.linear(normed, weight[dim:], bias[dim:])
        query = query.view(batch, 1, self.heads, dim // self.heads).transpose(1, 2)
        key, value = both.view(batch, length, 2, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, :, -1:])
        return self._feed(states[:, -1:], mixed)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Mix states [batch, length, dim] under a mask [batch, 1, length, length] (True may be seen)."""
        batch, length, dim = states.shape
        qkv = self.qkv(self.attention_norm(states)).view(batch, length, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [batch, heads, length, dim / heads]
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self._feed(states, mixed)

    def _feed(self, states: Tensor, mixed: Tensor) -> Tensor:
        """Add attention [batch, heads, length, head dim] to states [batch, length, dim]; feed forward."""
        states = states + self.dropout(self.out(mixed.transpose(1, 2).reshape(states.shape)))
        gate, content = self.up(self.feed_norm(states)).chunk(2, dim=-1)
        states = states + self.dropout(self.down(nn.functional.silu(gate) * content))
        return states


class UserEncoder(nn.Module):
    """Histories to vectors; position t depends on events 0..t only."""

    def __init__(
        self, dim: int, layers: int, heads: int, max_length: int, kinds: int, dropout: float
    ) -> None:
        """Build the tower."""
        super().__init__()
        self.max_length = max_length
        self.position = nn.Embedding(max_length, dim)
        self.kind = nn.Embedding(max(kinds, 1), dim)
        self.gap = nn.Embedding(GAP_BUCKETS, dim)
        for embedding in (self.position, self.kind, self.gap):
            nn.init.normal_(embedding.weight, std=0.02)
        self.input_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList([Block(dim, heads, dropout) for _ in range(layers)])
        self.output_norm = nn.LayerNorm(dim)

    def forward(self, items: Tensor, kinds: Tensor, times: Tensor, valid: Tensor) -> Tensor:
        """Return states [batch, length, dim]; see `_embed` for the arguments."""
        states, visible = self._embed(items, kinds, times, valid)
        for block in self.blocks:
            states = block(states, visible)
        normed: Tensor = self.output_norm(states)
        return normed

    def newest(self, items: Tensor, kinds: Tensor, times: Tensor, valid: Tensor) -> Tensor:
        """Return the last position of `forward`'s result, [batch, dim], at a fraction of its cost."""
        states, visible = self._embed(items, kinds, times, valid)
        *before, last = self.blocks
        for block in before:
            states = block(states, visible)
        normed: Tensor = self.output_norm(cast(Block, last).newest(states, visible))
        return normed[:, -1]

    def _embed(self, items: Tensor, kinds: Tensor, times: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first block's input, [batch, length, dim], and the attention mask.

        Args:
            items: item vectors, oldest first, right-aligned (padding in front), [batch, length, dim].
            kinds: event kind codes, [batch, length].
            times: Unix seconds, [batch, length].
            valid: False at padding, [batch, length].

        """
        length = items.shape[1]
        # Positions count back from the newest event: a longer history does not move the recent ones.
        positions = torch.arange(length - 1, -1, -1, device=items.device)
        states = items + self.position(positions) + self.kind(kinds) + self.gap(gap_buckets(times))
        states = self.dropout(self.input_norm(states))
        causal = torch.ones(length, length, dtype=torch.bool, device=items.device).tril()
        visible = causal & valid[:, None, None, :]
        # A padding row that attends to nothing would yield NaN; it may attend to itself and is ignored later.
        return states, visible | torch.eye(length, dtype=torch.bool, device=items.device)
