"""BERT's network for inference alone, from a folder in Hugging Face's layout.

A server encodes texts without the library transformers, whose import takes longer than the load of a model.
The arithmetic is that of transformers with its attention `sdpa`, operation by operation, so vectors are the
same. Devlin et al. 2019 (BERT), Liu et al. 2019 (RoBERTa), Conneau et al. 2020 (XLM-RoBERTa).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS: Final = "model.safetensors"
CONFIG: Final = "config.json"
FAMILIES: Final = ("bert", "roberta", "xlm-roberta")
"""`model_type` of the networks that this module computes."""
_ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
}
_NAMES: Final = (
    (r"^(bert|roberta)\.", ""),
    (r"^embeddings\.word_embeddings\.", "words."),
    (r"^embeddings\.position_embeddings\.", "positions."),
    (r"^embeddings\.token_type_embeddings\.", "types."),
    (r"^embeddings\.LayerNorm\.", "norm."),
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.self\.", "."),
    (r"\.attention\.output\.dense\.", ".attended."),
    (r"\.attention\.output\.LayerNorm\.", ".attended_norm."),
    (r"\.intermediate\.dense\.", ".wide."),
    (r"\.output\.dense\.", ".narrow."),
    (r"\.output\.LayerNorm\.", ".norm."),
)
"""Names of weights in a file, and here."""
_UNUSED: Final = re.compile(r"^pooler\.|^(cls|lm_head)\.|position_ids$|token_type_ids$")
"""Weights that vectors of texts do not need."""


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a network, by the names of `config.json`."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    hidden_act: str
    pad_token_id: int
    _attn_implementation: str = "sdpa"

    @classmethod
    def read(cls, folder: Path) -> BertConfig | None:
        """Return the sizes of the network in a folder; None where this module does not compute it.

        Raises:
            OSError, ValueError: the file cannot be read.
        """
        found: dict[str, Any] = json.loads((folder / CONFIG).read_text())
        if (
            found.get("model_type") not in FAMILIES
            or found.get("hidden_act", "gelu") not in _ACTIVATIONS
            or (found.get("position_embedding_type") or "absolute") != "absolute"
            or found.get("is_decoder")
            or not (folder / WEIGHTS).is_file()
        ):
            return None
        sizes = {
            "hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2, "pad_token_id": 0,
            **{name: found[name] for name in cls.__dataclass_fields__ if found.get(name) is not None},
        }  # fmt: skip
        try:
            return cls(**sizes)
        except TypeError:  # a size is missing, which transformers would take from the family's defaults
            return None


class BertOutput(NamedTuple):
    """What the network returns."""

    last_hidden_state: Tensor  # [texts, tokens, dim]


class _Layer(nn.Module):
    """Self-attention and a feed-forward network, each added to its input and normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        dim, wide = config.hidden_size, config.intermediate_size
        self.heads = config.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.attended = nn.Linear(dim, dim)
        self.attended_norm = nn.LayerNorm(dim, config.layer_norm_eps)
        self.wide, self.narrow = nn.Linear(dim, wide), nn.Linear(wide, dim)
        self.norm = nn.LayerNorm(dim, config.layer_norm_eps)
        self.activation = config.hidden_act

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """Return the next states, [texts, tokens, dim]; the mask is [texts, 1, 1, tokens]."""
        texts, tokens, dim = states.shape
        query, key, value = (
            part(states).view(texts, tokens, self.heads, -1).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )  # [texts, heads, tokens, dim / heads]
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=(dim // self.heads) ** -0.5
        )
        mixed = mixed.transpose(1, 2).contiguous().reshape(texts, tokens, dim)
        states = self.attended_norm(self.attended(mixed) + states)
        hidden = _ACTIVATIONS[self.activation](self.wide(states))
        normed: Tensor = self.norm(self.narrow(hidden) + states)
        return normed


class Bert(nn.Module):
    """Token ids to the states of the last layer."""

    def __init__(self, config: BertConfig) -> None:
        """Make the modules; `load` fills them."""
        super().__init__()
        self.config = config
        sizes = (config.vocab_size, config.max_position_embeddings, config.type_vocab_size)
        # From a tensor: drawing random numbers on the device `meta` would import torch's compiler, a second.
        self.words, self.positions, self.types = (
            nn.Embedding(size, config.hidden_size, _weight=torch.empty(size, config.hidden_size))
            for size in sizes
        )
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))

    @classmethod
    def load(cls, folder: Path, config: BertConfig) -> Bert:
        """Return the network of a folder.

        Raises:
            OSError, SafetensorError, RuntimeError: weights cannot be read, or are of another network.
        """
        weights = {_own_name(name): weight for name, weight in load_file(folder / WEIGHTS).items()}
        with torch.device("meta"):  # no random weights, which would be overwritten
            network = cls(config)
        used = {name: weight for name, weight in weights.items() if not _UNUSED.search(name)}
        network.load_state_dict(used, assign=True)
        return network.eval()

    def _places(self, ids: Tensor) -> Tensor:
        """Return the position of each token, [texts or 1, tokens].

        Those of RoBERTa begin behind the number of the padding token, which padding keeps.
        """
        if self.config.model_type == "bert":
            return torch.arange(ids.shape[1], device=ids.device)[None]
        there = ids.ne(self.config.pad_token_id).int()
        return (torch.cumsum(there, dim=1).type_as(there) * there).long() + self.config.pad_token_id

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> BertOutput:
        """Return the states of token ids [texts, tokens].

        Args:
            input_ids: the ids.
            attention_mask: 1 at tokens and 0 at padding, [texts, tokens], or true and false
                [texts, 1, 1, tokens]; without it no token is padding.
        """
        if attention_mask is not None and attention_mask.dim() == 2:
            attention_mask = attention_mask[:, None, None, :].bool()
        states = self.words(input_ids) + self.types.weight[0] + self.positions(self._places(input_ids))
        states = self.norm(states)
        for layer in self.layers:
            states = layer(states, attention_mask)
        return BertOutput(states)


def _own_name(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name
